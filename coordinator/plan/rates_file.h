// The file of `switchyard-trainer bench --calibrate`: what devices were measured to do. Its fields:
// docs/protocol.md.
//
// Only reads; which rates a plan uses is decided by RatesFor.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/plan/device_rates.h"

namespace switchyard::coordinator {

// InvalidArgument naming the device, the field and the value that is wrong. A rate that the file
// leaves out is that of the built-in table; unknown fields are ignored.
absl::StatusOr<std::vector<CalibratedRates>> ParseRates(const std::string& json);
// The same; errors name the file. NotFound when it is missing.
absl::StatusOr<std::vector<CalibratedRates>> ReadRatesFile(const std::string& path);

}  // namespace switchyard::coordinator
