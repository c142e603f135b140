#include "worker/agent/doctor/machine_checks.h"

#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/cpu_list.h"
#include "common/units.h"

namespace switchyard::agent {
namespace {

constexpr int64_t kShmPerSlot = 256 * kMiB;
constexpr int64_t kLeastDisk = 5 * kGiB;
constexpr int kHot = 88;

std::string Name(const GpuHealth& gpu) { return absl::StrCat("GPU ", gpu.index); }

HealthCheck CheckGpu(const GpuHealth& gpu) {
  HealthCheck check{"gpu", Health::kOk, "", ""};
  const auto say = [&](Health health, const std::string& message, const std::string& fix) {
    check = {"gpu", health, absl::StrCat(Name(gpu), " (", gpu.product, "): ", message), fix};
  };
  if (!gpu.error.empty()) {
    check = {"gpu", Health::kFailed, absl::StrCat(Name(gpu), ": ", gpu.error),
             "look for Xid messages in `dmesg`; restart the machine, and if it comes back so, have "
             "the GPU changed"};
  } else if (gpu.rows_failed > 0) {
    say(Health::kFailed, "memory rows could not be remapped", "have the GPU changed");
  } else if (gpu.ecc_uncorrected > 0) {
    say(Health::kFailed,
        absl::StrCat(gpu.ecc_uncorrected, " uncorrected memory errors since the driver's start"),
        "take the node out of use (`switchyard node drain NODE`) and restart the machine; if they "
        "come back, have the GPU changed");
  } else if (gpu.rows_pending > 0) {
    say(Health::kWarning, "a row remapping waits for a reset",
        "restart the machine when no job runs on it");
  } else if (gpu.slowdown > 0) {
    say(Health::kWarning,
        absl::StrCat("its clocks are lowered (reasons 0x", absl::Hex(gpu.slowdown), ", ",
                     gpu.celsius, " C)"),
        "`nvidia-smi -q -d PERFORMANCE` names the reason: cooling or power");
  } else if (gpu.celsius >= kHot) {
    say(Health::kWarning, absl::StrCat("it is at ", gpu.celsius, " C"), "look at its cooling");
  } else if (gpu.nvlinks > 0 && gpu.nvlinks_active < gpu.nvlinks) {
    say(Health::kWarning,
        absl::StrCat(gpu.nvlinks_active, " of ", gpu.nvlinks, " NVLinks are active"),
        "`nvidia-smi nvlink -s` names the links; on HGX machines see that the fabric manager runs");
  } else {
    say(Health::kOk,
        absl::StrCat(FormatBytes(static_cast<double>(gpu.memory_bytes)), ", ",
                     FormatBytes(static_cast<double>(gpu.used_bytes)), " in use, ", gpu.celsius,
                     " C"),
        "");
  }
  return check;
}

HealthCheck CheckTopology(const GpuMachine& machine) {
  std::vector<std::string> slow;
  std::vector<std::string> apart;
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    for (size_t j = i + 1; j < machine.gpus.size(); ++j) {
      if (!machine.gpus[i].error.empty() || !machine.gpus[j].error.empty()) continue;
      const std::string pair = absl::StrCat(machine.gpus[i].index, "-", machine.gpus[j].index);
      if (!machine.by_peer[i][j] && !machine.by_nvlink[i][j]) {
        apart.push_back(pair);
      } else if (!machine.by_nvlink[i][j]) {
        slow.push_back(pair);
      }
    }
  }
  if (!apart.empty()) {
    return {"nccl_topology", Health::kWarning,
            absl::StrCat("GPUs ", absl::StrJoin(apart, ", "), " cannot reach each other's memory"),
            "experts are exchanged through host memory, which is slow; see that IOMMU and ACS are "
            "off (`nvidia-smi topo -p2p r`)"};
  }
  if (!slow.empty()) {
    return {"nccl_topology", Health::kWarning,
            absl::StrCat("GPUs ", absl::StrJoin(slow, ", "), " are connected by PCIe only"),
            "keep expert_parallel within GPUs that share NVLink (`nvidia-smi topo -m`)"};
  }
  return {"nccl_topology", Health::kOk, "all GPUs reach each other by NVLink", ""};
}

// Standard output of a program with one argument, and whether it ended well.
bool Run(const std::string& program, const char* argument, std::string* output) {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) return false;
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(pipe_ends[1], STDOUT_FILENO);
    dup2(pipe_ends[1], STDERR_FILENO);
    execl(program.c_str(), program.c_str(), argument, nullptr);
    _exit(127);
  }
  close(pipe_ends[1]);
  char buffer[512];
  for (ssize_t n = 0; (n = read(pipe_ends[0], buffer, sizeof buffer)) > 0;)
    output->append(buffer, static_cast<size_t>(n));
  close(pipe_ends[0]);
  int status = 0;
  return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

}  // namespace

std::vector<HealthCheck> CheckGpus(const GpuMachine& machine) {
  if (machine.gpus.empty()) {
    const bool broken = absl::StrContains(machine.why, "does not answer");
    return {{"gpu", broken ? Health::kFailed : Health::kSkipped, machine.why,
             broken ? "`nvidia-smi` says why; often the driver was upgraded and the machine not "
                      "restarted"
                    : ""}};
  }
  std::vector<HealthCheck> checks;
  for (const GpuHealth& gpu : machine.gpus) checks.push_back(CheckGpu(gpu));
  if (machine.gpus.size() > 1) checks.push_back(CheckTopology(machine));
  return checks;
}

HealthCheck CheckGpuCpus(const std::string& sysfs) {
  namespace fs = std::filesystem;
  const std::vector<int> usable = UsableCpus();
  std::vector<std::string> found, without;
  std::error_code error;
  for (const auto& device : fs::directory_iterator(sysfs + "/bus/pci/devices", error)) {
    const auto read = [&](const char* name) {
      std::ifstream file(device.path() / name);
      std::string text;
      std::getline(file, text);
      return text;
    };
    // Display controllers: of graphics cards and of those for computing alone.
    if (read("vendor") != "0x10de" || !absl::StartsWith(read("class"), "0x03")) continue;
    const std::vector<int> near = ParseCpuList(read("local_cpulist"));
    std::vector<int> both;
    std::set_intersection(near.begin(), near.end(), usable.begin(), usable.end(),
                          std::back_inserter(both));
    const std::string name = device.path().filename().string();
    found.push_back(absl::StrCat(name, ": ", both.empty() ? "none" : CpuListText(both)));
    if (both.empty() && !near.empty())
      without.push_back(absl::StrCat(name, " (", CpuListText(near), ")"));
  }
  std::sort(found.begin(), found.end());
  std::sort(without.begin(), without.end());
  if (found.empty()) return {"gpu_cpus", Health::kSkipped, "no NVIDIA GPU on the PCI bus", ""};
  if (!without.empty()) {
    return {"gpu_cpus", Health::kWarning,
            absl::StrCat("this process may use no CPU near ", absl::StrJoin(without, ", ")),
            "give the agent these CPUs, too (CPUAffinity= of its unit, the container's cpuset)"};
  }
  return {"gpu_cpus", Health::kOk, absl::StrCat("CPUs near GPUs: ", absl::StrJoin(found, "; ")),
          ""};
}

HealthCheck CheckSharedMemory(const std::string& directory, int slots) {
  struct statvfs disk {};
  if (statvfs(directory.c_str(), &disk) != 0) {
    return {"shared_memory", Health::kFailed, absl::StrCat(directory, ": ", std::strerror(errno)),
            "mount a tmpfs there"};
  }
  const auto free = static_cast<int64_t>(disk.f_bavail * disk.f_frsize);
  const int64_t needed = kShmPerSlot * slots;
  const std::string found =
      absl::StrCat(directory, " has ", FormatBytes(static_cast<double>(free)), " free");
  if (free >= needed) return {"shared_memory", Health::kOk, found, ""};
  return {"shared_memory", Health::kWarning,
          absl::StrCat(found, "; ", slots, " ranks may need ",
                       FormatBytes(static_cast<double>(needed))),
          "enlarge it (`mount -o remount,size=8G /dev/shm`); in a container give it more shared "
          "memory"};
}

std::vector<HealthCheck> CheckLimits() {
  std::vector<HealthCheck> checks;
  rlimit files{}, locked{};
  getrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_MEMLOCK, &locked);
  if (files.rlim_cur >= 4096) {
    checks.push_back({"limits", Health::kOk, absl::StrCat(files.rlim_cur, " open files"), ""});
  } else {
    checks.push_back({"limits", Health::kWarning,
                      absl::StrCat("only ", files.rlim_cur, " files may be open"),
                      "raise it: `ulimit -n 65536`, or LimitNOFILE=65536 in the unit"});
  }
  if (locked.rlim_cur == RLIM_INFINITY || locked.rlim_cur >= rlim_t{kGiB}) {
    checks.push_back({"limits", Health::kOk, "memory may be locked, as RDMA needs it", ""});
  } else {
    checks.push_back(
        {"limits", Health::kWarning,
         absl::StrCat("only ", FormatBytes(static_cast<double>(locked.rlim_cur)),
                      " of memory may be locked"),
         "RDMA between nodes needs more: `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the "
         "unit; on one node it does not matter"});
  }
  return checks;
}

HealthCheck CheckDisk(const std::string& directory) {
  std::filesystem::path existing = directory;
  std::error_code error;
  while (!existing.empty() && !std::filesystem::exists(existing, error) &&
         existing != existing.parent_path()) {
    existing = existing.parent_path();
  }
  struct statvfs disk {};
  if (statvfs(existing.c_str(), &disk) != 0) {
    return {"disk", Health::kFailed, absl::StrCat(directory, ": ", std::strerror(errno)),
            "give a directory that can be read"};
  }
  const auto free = static_cast<int64_t>(disk.f_bavail * disk.f_frsize);
  const std::string found =
      absl::StrCat(directory, " has ", FormatBytes(static_cast<double>(free)), " free");
  if (access(existing.c_str(), W_OK) != 0) {
    return {"disk", Health::kFailed, absl::StrCat(directory, " cannot be written"),
            "give it to the user that runs this program (chown), or name another"};
  }
  if (free >= kLeastDisk) return {"disk", Health::kOk, found, ""};
  return {"disk", free < kGiB ? Health::kFailed : Health::kWarning, found,
          "make room: logs and prepared data lie there, and checkpoints if outputs do"};
}

HealthCheck CheckClock() {
  timex state{};
  if (adjtimex(&state) != TIME_ERROR && (state.status & STA_UNSYNC) == 0)
    return {"clock", Health::kOk, "the kernel says that the clock is synchronised", ""};
  return {"clock", Health::kWarning, "the kernel does not say that the clock is synchronised",
          "run chrony or systemd-timesyncd; certificates, tokens and logs depend on the time"};
}

HealthCheck CheckTrainer(const std::string& trainer) {
  std::string output;
  if (access(trainer.c_str(), X_OK) != 0) {
    return {"trainer", Health::kFailed, absl::StrCat(trainer, " is not there or not executable"),
            "install the trainer's runtime, or give --trainer PATH"};
  }
  const bool ran = Run(trainer, "--version", &output);
  output = std::string(absl::StripAsciiWhitespace(output));
  if (!ran) {
    return {"trainer", Health::kFailed,
            absl::StrCat(trainer, " does not start: ", output.substr(0, 300)),
            "libraries of its runtime are missing: `ldd` names them"};
  }
  if (output != SWITCHYARD_VERSION) {
    return {"trainer", Health::kFailed,
            absl::StrCat(trainer, " is version ", output, ", the agent " SWITCHYARD_VERSION),
            "install agent and trainer of one version on this node"};
  }
  return {"trainer", Health::kOk, absl::StrCat(trainer, " starts, version ", output), ""};
}

}  // namespace switchyard::agent
