// Memory of the machine and of the control groups (v2 and v1) that this process is in.
#include <algorithm>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "worker/agent/inventory/inventory.h"

namespace switchyard::agent {
namespace {

// "max" and what cannot be read are no limit (-1); v1 says no limit as a number near 2^63.
int64_t ReadBytes(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  int64_t value = 0;
  if (!(file >> text) || !absl::SimpleAtoi(text, &value) || value > (int64_t{1} << 60)) return -1;
  return value;
}

// Page cache that the kernel would give back: counted as used by the cgroup, free for us.
int64_t InactiveFile(const std::string& path) {
  std::ifstream file(path);
  std::string name;
  int64_t value = 0;
  while (file >> name >> value) {
    if (name == "inactive_file" || name == "total_inactive_file") return value;
  }
  return 0;
}

void Apply(const std::string& dir, const char* limit_file, const char* usage_file,
           MemoryBytes* memory) {
  const int64_t limit = ReadBytes(absl::StrCat(dir, "/", limit_file));
  if (limit < 0) return;
  const int64_t used = std::max<int64_t>(ReadBytes(absl::StrCat(dir, "/", usage_file)), 0) -
                       InactiveFile(absl::StrCat(dir, "/memory.stat"));
  memory->total = std::min(memory->total, limit);
  memory->available = std::min(memory->available, std::max<int64_t>(limit - used, 0));
}

// The group itself and every group above it limit.
void ApplyUpwards(const std::string& mount, std::string path, const char* limit, const char* usage,
                  MemoryBytes* memory) {
  for (;;) {
    Apply(absl::StrCat(mount, path), limit, usage, memory);
    const size_t slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return;
    path.resize(slash);
  }
}

}  // namespace

MemoryBytes UsableMemory(const std::string& root) {
  MemoryBytes memory;
  std::ifstream meminfo(absl::StrCat(root, "proc/meminfo"));
  for (std::string line; std::getline(meminfo, line);) {
    std::istringstream fields(line);
    std::string name;
    int64_t kib = 0;
    fields >> name >> kib;
    if (name == "MemTotal:") memory.total = kib << 10;
    if (name == "MemAvailable:") memory.available = kib << 10;
  }
  std::ifstream cgroup(absl::StrCat(root, "proc/self/cgroup"));
  for (std::string line; std::getline(cgroup, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::string path = parts[2] == "/" ? "" : parts[2];
    if (parts[1].empty()) {
      ApplyUpwards(absl::StrCat(root, "sys/fs/cgroup"), path, "memory.max", "memory.current",
                   &memory);
    } else if (parts[1] == "memory") {
      ApplyUpwards(absl::StrCat(root, "sys/fs/cgroup/memory"), path, "memory.limit_in_bytes",
                   "memory.usage_in_bytes", &memory);
    }
  }
  return memory;
}

}  // namespace switchyard::agent
