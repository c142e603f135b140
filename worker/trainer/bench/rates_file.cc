#include "worker/trainer/bench/rates_file.h"

#include <ctime>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/durable_file.h"
#include "worker/trainer/train/exit_code.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;
constexpr int64_t kMaxBytes = 1 << 20;

std::string Today() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[16];
  return std::string(text, std::strftime(text, sizeof(text), "%Y-%m-%d", &utc));
}

bool SameDevice(const json& entry, const MeasuredRates& rates) {
  return entry.is_object() && entry.value("product", "") == rates.product &&
         entry.value("device", "") == rates.device &&
         entry.value("precision", "") == rates.precision;
}

}  // namespace

json ReadOtherRates(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxBytes);
  if (absl::IsNotFound(text.status())) return json::array();
  if (!text.ok()) throw TrainerError(ExitCode::kOutput, std::string(text.status().message()));
  const json document = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("devices") || !document["devices"].is_array()) {
    throw TrainerError(
        ExitCode::kOutput,
        absl::StrCat("--out ", path, " exists and is no file of rates; give another name"));
  }
  return document["devices"];
}

void WriteRates(const std::string& path, const MeasuredRates& rates) {
  json devices = json::array();
  for (const json& entry : ReadOtherRates(path)) {
    if (!SameDevice(entry, rates)) devices.push_back(entry);
  }
  json own = {{"product", rates.product},
              {"device", rates.device},
              {"precision", rates.precision},
              {"measured_at", Today()}};
  for (const auto& [name, value] : rates.values) own[name] = value;
  devices.push_back(own);
  const json document = {{"format", kFormat}, {"devices", devices}};
  const absl::Status status = WriteFileDurably(path, document.dump(2) + "\n");
  if (!status.ok()) throw TrainerError(ExitCode::kOutput, std::string(status.message()));
}

std::string RatesTable(const MeasuredRates& rates) {
  std::string text = absl::StrCat(rates.product, ", ", rates.precision, "\n");
  for (const auto& [name, value] : rates.values) {
    const bool flops = absl::EndsWith(name, "_flops");
    const bool bytes = absl::EndsWith(name, "_bytes_per_second");
    absl::StrAppendFormat(&text, "  %-28s %12.1f %s\n", name,
                          value * (flops   ? 1e-9
                                   : bytes ? 1e-9
                                           : 1e6),
                          flops   ? "GFLOP/s"
                          : bytes ? "GB/s"
                                  : "us");
  }
  return text;
}

}  // namespace switchyard::trainer
