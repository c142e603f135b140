#include "worker/agent/process/proc_fs.h"

#include <dirent.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace switchyard::agent {

std::optional<ProcStat> ReadProcStat(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string text;
  if (!std::getline(file, text, '\0')) return std::nullopt;
  // The name in parentheses may hold anything; the fields follow its last closing one.
  const size_t close = text.rfind(')');
  if (close == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(close + 1));
  ProcStat stat;
  stat.pid = pid;
  std::string skipped;
  fields >> stat.state >> stat.parent >> stat.group;
  for (int field = 6; field <= 21; ++field) fields >> skipped;  // start time is field 22 of proc(5)
  fields >> stat.start_ticks;
  if (!fields) return std::nullopt;
  return stat;
}

std::vector<ProcStat> AllProcesses() {
  std::vector<ProcStat> processes;
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return processes;
  while (const dirent* entry = readdir(proc)) {
    if (!std::isdigit(static_cast<unsigned char>(entry->d_name[0]))) continue;
    if (auto stat = ReadProcStat(std::atoi(entry->d_name))) processes.push_back(*stat);
  }
  closedir(proc);
  return processes;
}

bool GroupAlive(pid_t group) {
  const auto processes = AllProcesses();
  return std::any_of(processes.begin(), processes.end(), [&](const ProcStat& process) {
    return process.group == group && process.alive();
  });
}

bool EnvironmentHas(pid_t pid, const std::string& entry) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/environ"));
  for (std::string item; std::getline(file, item, '\0');) {
    if (item == entry) return true;
  }
  return false;
}

}  // namespace switchyard::agent
