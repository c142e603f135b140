#include "worker/trainer/train/cpu_binding.h"

#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::trainer {
namespace {

constexpr int kMaxNode = 1023;

// [begin, end) of runs of consecutive numbers.
std::vector<std::pair<size_t, size_t>> Runs(const std::vector<int>& cpus) {
  std::vector<std::pair<size_t, size_t>> runs;
  for (size_t i = 0; i < cpus.size(); ++i) {
    if (i > 0 && cpus[i] == cpus[i - 1] + 1) {
      runs.back().second = i + 1;
    } else {
      runs.emplace_back(i, i + 1);
    }
  }
  return runs;
}

}  // namespace

std::vector<int> ShareOfCpus(const std::vector<std::vector<int>>& near, size_t index,
                             const std::vector<int>& usable) {
  std::vector<int> cpus;
  std::set_intersection(near[index].begin(), near[index].end(), usable.begin(), usable.end(),
                        std::back_inserter(cpus));
  const auto sharers = static_cast<size_t>(std::count(near.begin(), near.end(), near[index]));
  const auto place = static_cast<size_t>(
      std::count(near.begin(), near.begin() + static_cast<ptrdiff_t>(index), near[index]));
  if (cpus.size() < sharers) return cpus;
  std::vector<std::pair<size_t, size_t>> runs = Runs(cpus);
  const bool short_run = std::any_of(
      runs.begin(), runs.end(), [&](const auto& run) { return run.second - run.first < sharers; });
  if (short_run) runs = {{0, cpus.size()}};
  std::vector<int> share;
  for (const auto& [begin, end] : runs) {
    const size_t count = end - begin;
    for (size_t i = count * place / sharers; i < count * (place + 1) / sharers; ++i)
      share.push_back(cpus[begin + i]);
  }
  return share;
}

std::string Bind(const std::vector<int>& cpus, int numa_node) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0)
    return absl::StrCat("sched_setaffinity: ", std::strerror(errno));
  if (numa_node < 0 || numa_node > kMaxNode) return "";
  constexpr int kBits = 8 * sizeof(unsigned long);
  unsigned long nodes[(kMaxNode + 1) / kBits] = {};
  nodes[numa_node / kBits] = 1UL << (numa_node % kBits);
  // No libnuma: one call. Containers may forbid it; the CPUs alone keep new memory near.
  if (syscall(SYS_set_mempolicy, MPOL_PREFERRED, nodes, kMaxNode + 2) != 0)
    return absl::StrCat("set_mempolicy: ", std::strerror(errno));
  return "";
}

}  // namespace switchyard::trainer
