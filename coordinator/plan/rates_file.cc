#include "coordinator/plan/rates_file.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/durable_file.h"
#include "common/status_macros.h"

namespace switchyard::coordinator {
namespace {

using nlohmann::json;

constexpr int64_t kMaxBytes = 1 << 20;
constexpr int kFormat = 1;

struct Field {
  const char* name;
  double DeviceRates::*rate;
  double least, most;  // beyond which it is no measurement
};

constexpr Field kFields[] = {
    {"dense_flops", &DeviceRates::dense_flops, 1e8, 1e17},
    {"expert_flops", &DeviceRates::expert_flops, 1e8, 1e17},
    {"attention_forward_flops", &DeviceRates::attention_forward_flops, 1e7, 1e17},
    {"attention_backward_flops", &DeviceRates::attention_backward_flops, 1e7, 1e17},
    {"memory_bytes_per_second", &DeviceRates::memory_bytes_per_second, 1e7, 1e15},
    {"link_bytes_per_second", &DeviceRates::link_bytes_per_second, 1e6, 1e14},
    {"collective_bytes_per_second", &DeviceRates::collective_bytes_per_second, 1e6, 1e14},
    {"barrier_seconds", &DeviceRates::barrier_seconds, 0, 1},
    {"launch_layer_seconds", &DeviceRates::launch_layer_seconds, 0, 1},
    {"launch_rest_seconds", &DeviceRates::launch_rest_seconds, 0, 1},
    {"launch_collective_seconds", &DeviceRates::launch_collective_seconds, 0, 1},
};

absl::Status Wrong(size_t index, const std::string& field, const json& value,
                   const std::string& wanted) {
  return absl::InvalidArgumentError(absl::StrCat(
      "devices[", index, "].", field, " is ",
      value.is_discarded() || value.is_null() ? "missing" : value.dump(), "; ", wanted));
}

absl::StatusOr<CalibratedRates> ParseDevice(size_t index, const json& object) {
  const auto text = [&](const char* name) {
    const auto at = object.find(name);
    return at == object.end() ? json() : *at;
  };
  const json product = text("product"), device = text("device"), precision = text("precision");
  if (!product.is_string() || product.get<std::string>().empty())
    return Wrong(index, "product", product, "give the device's product name");
  if (device != "cpu" && device != "cuda")
    return Wrong(index, "device", device, "use \"cpu\" or \"cuda\"");
  if (precision != "float32" && precision != "bfloat16")
    return Wrong(index, "precision", precision, "use \"float32\" or \"bfloat16\"");

  CalibratedRates entry;
  entry.device = device == "cpu" ? DeviceKind::kCpu : DeviceKind::kCuda;
  entry.product = product.get<std::string>();
  entry.precision = precision == "float32" ? Precision::kFloat32 : Precision::kBfloat16;
  entry.rates = RatesFor(entry.device, entry.product, entry.precision);
  entry.rates.name = entry.product;
  entry.rates.calibrated = true;
  const json when = text("measured_at");
  entry.rates.source = absl::StrCat("a calibration of ", entry.product,
                                    when.is_string() ? " on " + when.get<std::string>() : "");
  for (const Field& field : kFields) {
    const json value = text(field.name);
    if (value.is_null()) continue;
    const bool number = value.is_number() && std::isfinite(value.get<double>());
    if (!number || value.get<double>() < field.least || value.get<double>() > field.most) {
      return Wrong(index, field.name, value,
                   absl::StrFormat("must be a number between %g and %g", field.least, field.most));
    }
    entry.rates.*field.rate = value.get<double>();
  }
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<CalibratedRates>> ParseRates(const std::string& text) {
  const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("devices") || !document["devices"].is_array()) {
    return absl::InvalidArgumentError(
        "is no JSON object with an array `devices`; write it with switchyard-trainer bench "
        "--calibrate --out FILE");
  }
  if (document.value("format", json()) != kFormat) {
    return absl::InvalidArgumentError(
        absl::StrCat("format is ", document.value("format", json()).dump(), "; this version reads ",
                     kFormat, ": calibrate again with the trainer of this version"));
  }
  std::vector<CalibratedRates> entries;
  for (const json& object : document["devices"]) {
    const size_t index = entries.size();
    if (!object.is_object())
      return absl::InvalidArgumentError(absl::StrCat("devices[", index, "] is no object"));
    SWITCHYARD_ASSIGN_OR_RETURN(CalibratedRates entry, ParseDevice(index, object));
    entries.push_back(std::move(entry));
  }
  return entries;
}

absl::StatusOr<std::vector<CalibratedRates>> ReadRatesFile(const std::string& path) {
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxBytes));
  absl::StatusOr<std::vector<CalibratedRates>> entries = ParseRates(text);
  if (entries.ok()) return entries;
  return absl::Status(entries.status().code(),
                      absl::StrCat(path, ": ", entries.status().message()));
}

}  // namespace switchyard::coordinator
