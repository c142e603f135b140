// The file of measured rates: written here, read by the coordinator
// (coordinator/plan/rates_file.h). Its fields: docs/protocol.md.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace switchyard::trainer {

// Of one device; FLOPs a second, bytes a second, seconds, by the file's names.
struct MeasuredRates {
  std::string product, device, precision;
  std::vector<std::pair<std::string, double>> values;

  void Set(const char* name, double value) { values.emplace_back(name, value); }
};

// Entries of `path`; none when it does not exist. Throws TrainerError(kOutput) when it is something
// else than such a file.
nlohmann::json ReadOtherRates(const std::string& path);
// Puts `rates` there in place of what it said of the same device and precision. Throws
// TrainerError(kOutput).
void WriteRates(const std::string& path, const MeasuredRates& rates);
// For people.
std::string RatesTable(const MeasuredRates& rates);

}  // namespace switchyard::trainer
