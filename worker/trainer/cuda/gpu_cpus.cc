#include "worker/trainer/cuda/gpu_cpus.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/cpu_list.h"
#include "common/log.h"
#include "worker/trainer/cuda/cuda_check.h"
#include "worker/trainer/train/cpu_binding.h"

namespace switchyard::trainer {
namespace {

// "0000:1b:00.0", as sysfs names it.
std::string PciAddress(int device) {
  char address[32] = {};
  cuda::Check(cudaDeviceGetPCIBusId(address, sizeof(address), device), "cudaDeviceGetPCIBusId");
  return absl::AsciiStrToLower(address);
}

// What the kernel says of the device; empty when nothing.
std::string Attribute(const std::string& pci_address, const char* name) {
  std::ifstream file(absl::StrCat("/sys/bus/pci/devices/", pci_address, "/", name));
  std::string text;
  std::getline(file, text);
  return text;
}

}  // namespace

void BindToCpusNear(int index, int count) {
  static const std::vector<int> usable = UsableCpus();  // also if this is not the first call
  // Ranks may see the GPUs in different orders; the bus has only one.
  const std::string own = PciAddress(index);
  std::vector<std::string> all;
  for (int i = 0; i < count; ++i) all.push_back(PciAddress(i));
  std::sort(all.begin(), all.end());
  std::vector<std::vector<int>> near;
  for (const std::string& address : all)
    near.push_back(ParseCpuList(Attribute(address, "local_cpulist")));
  const auto place = static_cast<size_t>(std::find(all.begin(), all.end(), own) - all.begin());
  const std::vector<int> cpus = ShareOfCpus(near, place, usable);
  if (cpus.empty()) {
    log::Info("trainer.cpus",
              {{"gpu", own}, {"bound", false}, {"reason", "none known to be near"}});
    return;
  }
  const std::string node = Attribute(own, "numa_node");
  const std::string refused = Bind(cpus, node.empty() ? -1 : std::atoi(node.c_str()));
  log::Info(
      "trainer.cpus",
      {{"gpu", own}, {"bound", CpuListText(cpus)}, {"numa_node", node}, {"refused", refused}});
}

}  // namespace switchyard::trainer
