// Structured log: one JSON object a line on standard error; the same in coordinator, agent and
// trainer.
//
// SWITCHYARD_LOG_FORMAT=text writes lines for people instead, SWITCHYARD_LOG_LEVEL=debug (info,
// warning, error) chooses what is written; trainers inherit both from their agent.
//
//   log::Info("job.accepted", {{"job", name}, {"expert_parallel", 8}});
//
// Event names are constant, "noun.verb". glog, absl log and spdlog clash with headers of LibTorch
// or are not packaged, which is why this is our own.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace switchyard::log {

enum class Level { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };

using Field = std::pair<const char*, nlohmann::json>;

// Lines below `level` are dropped; default kInfo. Thread-safe.
void SetMinimumLevel(Level level);
// Takes format and level from the environment. False, with `problem` saying what is wrong, when a
// variable has another value than those above; it then counts as unset.
bool ConfigureFromEnvironment(std::string* problem);
// Fields added to every line of this process, for example the rank. Call before threads start.
void SetProcessFields(std::initializer_list<Field> fields);

void Write(Level level, const char* event, std::initializer_list<Field> fields);

inline void Debug(const char* event, std::initializer_list<Field> fields = {}) {
  Write(Level::kDebug, event, fields);
}
inline void Info(const char* event, std::initializer_list<Field> fields = {}) {
  Write(Level::kInfo, event, fields);
}
inline void Warning(const char* event, std::initializer_list<Field> fields = {}) {
  Write(Level::kWarning, event, fields);
}
inline void Error(const char* event, std::initializer_list<Field> fields = {}) {
  Write(Level::kError, event, fields);
}

}  // namespace switchyard::log
