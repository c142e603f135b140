#include "worker/agent/process/leftovers.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/unique_fd.h"
#include "worker/agent/core/names.h"
#include "worker/agent/log/log_spool.h"
#include "worker/agent/process/pidfd.h"
#include "worker/agent/process/proc_fs.h"

namespace switchyard::agent {
namespace {

namespace fs = std::filesystem;

struct PidFile {
  ProcessKey key;
  int slot = 0;
  pid_t pid = 0;
  uint64_t start_ticks = 0;
  fs::path path;
};

std::string PidPath(const std::string& work_dir, const ProcessKey& key) {
  return absl::StrCat(AttemptDir(work_dir, key.attempt), "/rank-", key.rank, ".pid");
}

std::vector<PidFile> FindPidFiles(const std::string& work_dir) {
  std::vector<PidFile> found;
  std::error_code error;
  for (auto it = fs::recursive_directory_iterator(absl::StrCat(work_dir, "/attempts"), error);
       !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (it.depth() != 2 || it->path().extension() != ".pid") continue;
    PidFile file;
    file.path = it->path();
    file.key.attempt.job_uid = file.path.parent_path().parent_path().filename().string();
    std::ifstream in(file.path);
    in >> file.key.attempt.epoch >> file.key.rank >> file.slot >> file.pid >> file.start_ticks;
    if (in && IsSafeUid(file.key.attempt.job_uid)) found.push_back(file);
  }
  return found;
}

// Through a pidfd, so that the pid cannot change hands between the look and the signal.
void Kill(const ProcStat& target) {
  const UniqueFd fd(PidfdOpen(target.pid));
  if (!fd.valid()) return;
  const auto now = ReadProcStat(target.pid);
  if (!now.has_value() || now->start_ticks != target.start_ticks) return;
  log::Warning("leftover.killed", {{"pid", target.pid}, {"group", target.group}});
  PidfdSendSignal(fd.get(), SIGKILL);
}

std::vector<ProcStat> Alive(const std::vector<PidFile>& files,
                            const std::vector<std::string>& marks) {
  std::vector<ProcStat> alive;
  for (const ProcStat& process : AllProcesses()) {
    if (!process.alive() || process.pid == getpid()) continue;
    const bool named = std::any_of(files.begin(), files.end(), [&](const PidFile& file) {
      return file.pid == process.pid && file.start_ticks == process.start_ticks;
    });
    const bool marked =
        !named && std::any_of(marks.begin(), marks.end(), [&](const std::string& mark) {
          return EnvironmentHas(process.pid, mark);
        });
    if (named || marked) alive.push_back(process);
  }
  return alive;
}

v1::AttemptStatus Lost(const AttemptKey& key) {
  v1::AttemptStatus status;
  status.set_job_uid(key.job_uid);
  status.set_epoch(key.epoch);
  status.set_state(v1::ATTEMPT_STATE_ENDED);
  status.set_stop_reason("the node's agent died and was started again");
  return status;
}

}  // namespace

std::string EnvironmentMark(const std::string& work_dir, const AttemptKey& key) {
  return absl::StrCat("SWITCHYARD_ATTEMPT=", AttemptDir(work_dir, key));
}

absl::Status WritePidFile(const std::string& work_dir, const ProcessKey& key, int slot,
                          int64_t pid) {
  const auto stat = ReadProcStat(static_cast<pid_t>(pid));
  const std::string path = PidPath(work_dir, key);
  std::ofstream file(path);
  file << key.attempt.epoch << ' ' << key.rank << ' ' << slot << ' ' << pid << ' '
       << (stat.has_value() ? stat->start_ticks : 0) << '\n';
  file.close();
  return file ? absl::OkStatus() : absl::InternalError(absl::StrCat("cannot write ", path));
}

void RemovePidFiles(const std::string& work_dir, const GroupKey& key) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(AttemptDir(work_dir, key.attempt), error)) {
    const std::string name = entry.path().filename().string();
    const bool preparation = name == "rank--1.pid";
    if (!absl::EndsWith(name, ".pid") || preparation != (key.phase == Phase::kPreparation))
      continue;
    unlink(entry.path().c_str());
  }
}

void RemoveSharedMemory(const AttemptKey& key) {
  const std::string prefix = absl::StrCat("switchyard-", key.job_uid, "-", key.epoch, "-");
  std::error_code error;
  std::vector<fs::path> segments;
  for (const auto& entry : fs::directory_iterator("/dev/shm", error)) {
    if (absl::StartsWith(entry.path().filename().string(), prefix))
      segments.push_back(entry.path());
  }
  for (const auto& segment : segments) unlink(segment.c_str());
}

absl::StatusOr<std::vector<v1::AttemptStatus>> RemoveLeftovers(const std::string& work_dir,
                                                               std::chrono::milliseconds patience) {
  const std::vector<PidFile> files = FindPidFiles(work_dir);
  std::map<AttemptKey, v1::AttemptStatus> lost;
  std::vector<std::string> marks;
  for (const PidFile& file : files) {
    const auto [it, added] = lost.try_emplace(file.key.attempt, Lost(file.key.attempt));
    if (added) marks.push_back(EnvironmentMark(work_dir, file.key.attempt));
    if (file.key.rank == kPreparationRank) {
      it->second.mutable_data()->set_error("the node's agent died while data was prepared");
      continue;
    }
    auto* rank = it->second.add_ranks();
    rank->set_rank(file.key.rank);
    rank->set_slot(file.slot);
    rank->set_pid(file.pid);
    rank->set_exited(true);
    rank->set_exit_code(128 + SIGKILL);
    rank->mutable_exit()->set_code("AGENT_RESTARTED");
    rank->mutable_exit()->set_message("the node's agent died, and its trainers with it");
  }
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!files.empty()) {
    const auto alive = Alive(files, marks);
    if (alive.empty()) break;
    if (std::chrono::steady_clock::now() >= until) {
      return absl::DeadlineExceededError(
          absl::StrCat("process ", alive.front().pid,
                       " of an earlier run of this agent does not die; it may hang in "
                       "a driver: restart the machine or wait and start again"));
    }
    for (const ProcStat& process : alive) Kill(process);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  std::vector<v1::AttemptStatus> results;
  for (auto& [key, status] : lost) {
    RemoveSharedMemory(key);
    results.push_back(std::move(status));
  }
  return results;
}

}  // namespace switchyard::agent
