#include "common/log.h"

#include <unistd.h>

#include <atomic>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard::log {
namespace {

std::atomic<Level> minimum_level{Level::kInfo};
std::atomic<bool> as_text{false};

nlohmann::ordered_json& ProcessFields() {
  static auto& fields = *new nlohmann::ordered_json(nlohmann::ordered_json::object());
  return fields;
}

std::string Timestamp() {
  using namespace std::chrono;
  const auto now = system_clock::now();
  const std::time_t seconds = system_clock::to_time_t(now);
  const int64_t micros = duration_cast<microseconds>(now.time_since_epoch()).count() % 1000000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", utc.tm_year + 1900, utc.tm_mon + 1,
                         utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, micros);
}

const char* LevelName(Level level) {
  switch (level) {
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kWarning:
      return "warning";
    case Level::kError:
      return "error";
  }
  return "info";
}

// A value in a line for people: as it is when it is one plain word, else as JSON.
std::string PlainValue(const nlohmann::ordered_json& value) {
  const std::string json = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (!value.is_string()) return json;
  const std::string inside = json.substr(1, json.size() - 2);
  const bool plain = !inside.empty() && inside.find_first_of(" =\"\\") == std::string::npos;
  return plain ? inside : json;
}

// "2026-11-22T08:33:12.677287Z INFO    coordinator.listening program=coordinator address=..."
std::string TextLine(const nlohmann::ordered_json& line) {
  std::string level = line["level"];
  for (char& c : level) c = static_cast<char>(std::toupper(c));
  std::string text = absl::StrFormat("%s %-7s %s", line["time"].get<std::string>(), level,
                                     line["event"].get<std::string>());
  for (const auto& [key, value] : line.items()) {
    if (key == "time" || key == "level" || key == "event") continue;
    absl::StrAppend(&text, " ", key, "=", PlainValue(value));
  }
  return text;
}

}  // namespace

bool ConfigureFromEnvironment(std::string* problem) {
  const char* format = std::getenv("SWITCHYARD_LOG_FORMAT");
  const char* level = std::getenv("SWITCHYARD_LOG_LEVEL");
  const std::string format_text = format == nullptr || *format == 0 ? "json" : format;
  const std::string level_text = level == nullptr || *level == 0 ? "info" : level;
  problem->clear();
  if (format_text != "json" && format_text != "text")
    *problem = "SWITCHYARD_LOG_FORMAT is \"" + format_text + "\"; give json or text";
  as_text = format_text == "text";
  bool known = false;
  for (const Level one : {Level::kDebug, Level::kInfo, Level::kWarning, Level::kError}) {
    if (level_text != LevelName(one)) continue;
    SetMinimumLevel(one);
    known = true;
  }
  if (!known)
    *problem = "SWITCHYARD_LOG_LEVEL is \"" + level_text + "\"; give debug, info, warning or error";
  return problem->empty();
}

void SetMinimumLevel(Level level) { minimum_level = level; }

void SetProcessFields(std::initializer_list<Field> fields) {
  for (const auto& [key, value] : fields) ProcessFields()[key] = value;
}

void Write(Level level, const char* event, std::initializer_list<Field> fields) {
  if (level < minimum_level.load(std::memory_order_relaxed)) return;
  nlohmann::ordered_json line;
  line["time"] = Timestamp();
  line["level"] = LevelName(level);
  line["event"] = event;
  line.update(ProcessFields());
  for (const auto& [key, value] : fields) line[key] = value;
  std::string text = as_text ? TextLine(line)
                             : line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.push_back('\n');
  // One write a line, so that lines of several threads or processes do not mix.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace switchyard::log
