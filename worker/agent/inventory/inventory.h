// What this node offers: slots, memory, cores, and what identifies it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "switchyard/agent/v1/agent.pb.h"

namespace switchyard::agent {

struct InventoryOptions {
  // CPU slots; 0: the GPUs, or without any a slot a core, at most kMaxDefaultCpuSlots.
  int cpu_slots = 0;
  // Address that peers reach this node's ranks at; empty: as ChooseFabricAddress says.
  std::string fabric_address;
  // Network interface for traffic between nodes; empty: none was chosen.
  std::string fabric_interface;
  // HOST:PORT of the coordinator.
  std::string coordinator;
};
inline constexpr int kMaxDefaultCpuSlots = 8;

// InvalidArgument when cpu_slots is out of range or the interface does not serve.
absl::StatusOr<v1::Inventory> TakeInventory(const InventoryOptions& options);

// Changes with every boot of the machine.
std::string BootId();
// Cores that this process may use: affinity and cgroup quota.
int UsableCores();

struct MemoryBytes {
  int64_t total = 0;      // physical, or the cgroup's limit when that is less
  int64_t available = 0;  // of it, not in use now
};
// `root` is "/" but in tests: proc/meminfo, proc/self/cgroup and sys/fs/cgroup below it.
MemoryBytes UsableMemory(const std::string& root = "/");

// Identity of /dev/shm: equal for processes that can share segments.
std::string MemoryDomain();

}  // namespace switchyard::agent
