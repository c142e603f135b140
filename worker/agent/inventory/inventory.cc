#include "worker/agent/inventory/inventory.h"

#include <sched.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/cpu_product.h"
#include "common/status_macros.h"
#include "worker/agent/inventory/fabric.h"
#include "worker/agent/inventory/nvml.h"

namespace switchyard::agent {
namespace {

constexpr int kMaxCpuSlots = 1024;

}  // namespace

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  file >> id;
  return id;
}

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  std::ifstream quota_file("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (quota_file >> quota >> period && quota > 0 && period > 0) {
    cores = std::min(cores, std::max(1, static_cast<int>(quota / period)));
  }
  return std::max(cores, 1);
}

std::string MemoryDomain() {
  struct stat stat {};
  if (::stat("/dev/shm", &stat) != 0) return "";
  return absl::StrCat(BootId(), "/", static_cast<uint64_t>(stat.st_dev));
}

absl::StatusOr<v1::Inventory> TakeInventory(const InventoryOptions& options) {
  if (options.cpu_slots < 0 || options.cpu_slots > kMaxCpuSlots) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--cpu-slots is %d; must be between 1 and %d, or 0 to use the GPUs",
                        options.cpu_slots, kMaxCpuSlots));
  }
  v1::Inventory inventory;
  const MemoryBytes memory = UsableMemory();
  inventory.set_memory_bytes(memory.total);
  inventory.set_memory_domain(MemoryDomain());
  inventory.set_cpu_cores(UsableCores());
  inventory.set_cpu_product(CpuProduct());
  SWITCHYARD_ASSIGN_OR_RETURN(
      *inventory.mutable_fabric_address(),
      ChooseFabricAddress(options.fabric_interface, options.fabric_address, options.coordinator));
  if (options.cpu_slots == 0) {
    for (const Gpu& gpu : VisibleGpus(FindGpus(), std::getenv("CUDA_VISIBLE_DEVICES"))) {
      auto* slot = inventory.add_slots();
      slot->set_index(inventory.slots_size() - 1);
      slot->set_device("cuda");
      slot->set_product(gpu.product);
      slot->set_uuid(gpu.uuid);
      slot->set_memory_bytes(gpu.memory_bytes);
    }
    if (inventory.slots_size() > 0) return inventory;
  }
  const int count = options.cpu_slots > 0 ? options.cpu_slots
                                          : std::min(inventory.cpu_cores(), kMaxDefaultCpuSlots);
  for (int i = 0; i < count; ++i) {
    auto* slot = inventory.add_slots();
    slot->set_index(i);
    slot->set_device("cpu");
    slot->set_product(inventory.cpu_product());
    slot->set_memory_bytes(memory.available / count);
  }
  return inventory;
}

}  // namespace switchyard::agent
