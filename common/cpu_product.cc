#include "common/cpu_product.h"

#include <fstream>

#include "absl/strings/match.h"

namespace switchyard {

std::string CpuProduct() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (absl::StartsWith(line, "model name") && colon != std::string::npos)
      return line.substr(colon + 2);
  }
  return "unknown CPU";
}

}  // namespace switchyard
