// The name of this machine's CPUs: agents report it and calibrations are filed under it, so that
// the planner finds the rates of a node.
#pragma once

#include <string>

namespace switchyard {

// As /proc/cpuinfo has it; "unknown CPU" where it has none.
std::string CpuProduct();

}  // namespace switchyard
