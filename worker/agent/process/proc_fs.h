// What /proc says of processes.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace switchyard::agent {

struct ProcStat {
  pid_t pid = 0;
  char state = '?';  // 'Z' and 'X' are dead
  pid_t parent = 0;
  pid_t group = 0;
  uint64_t start_ticks = 0;  // since boot; with the pid it names a process for good
  bool alive() const { return state != 'Z' && state != 'X'; }
};

// Empty when there is no such process.
std::optional<ProcStat> ReadProcStat(pid_t pid);
// Every process of the machine (of this pid namespace).
std::vector<ProcStat> AllProcesses();
// True when a process of the group is alive.
bool GroupAlive(pid_t group);
// True when the process's environment at its start held `entry` ("NAME=value"). False when it
// cannot be read.
bool EnvironmentHas(pid_t pid, const std::string& entry);

}  // namespace switchyard::agent
