// One step as a Chrome trace and as a table of kernels, taken by torch's profiler.
#pragma once

#include <string>

namespace switchyard::trainer::cuda {

// From here on every kernel and every named range is recorded. Costs time: not while measuring.
void StartTrace();
// Writes what ran since to `path` (chrome://tracing, Perfetto); returns a table of the kernels, the
// longest first: milliseconds, calls, name. Waits for the device.
std::string StopTrace(const std::string& path);

}  // namespace switchyard::trainer::cuda
