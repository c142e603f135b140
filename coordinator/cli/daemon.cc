#include "coordinator/cli/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

extern char** environ;

namespace switchyard::coordinator {
namespace {

std::string BootId() {
  std::string id;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
  return id;
}

struct ProcessStat {
  char state = 0;
  uint64_t start_ticks = 0;
};

std::optional<ProcessStat> ReadStat(pid_t pid) {
  std::string text;
  if (!std::getline(std::ifstream(absl::StrCat("/proc/", pid, "/stat")), text)) return std::nullopt;
  // The name in brackets may hold anything; fields are counted from the last bracket.
  const size_t close = text.rfind(')');
  if (close == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(close + 1));
  ProcessStat stat;
  fields >> stat.state;
  std::string skipped;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> stat.start_ticks;
  if (!fields) return std::nullopt;
  return stat;
}

}  // namespace

absl::StatusOr<Daemon> StartDaemon(const std::string& name, const std::vector<std::string>& command,
                                   const std::string& log) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  // Nothing else of this process may stay open in a daemon: neither pipes of a caller nor our lock.
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  std::vector<std::string> words = command;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  Daemon daemon;
  daemon.name = name;
  daemon.log = log;
  const int error = posix_spawn(&daemon.pid, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot start ", argv[0], ": ", std::strerror(error)));
  }
  const auto stat = ReadStat(daemon.pid);
  daemon.start_ticks = stat.has_value() ? stat->start_ticks : 0;
  daemon.boot_id = BootId();
  return daemon;
}

bool IsRunning(const Daemon& daemon) {
  if (daemon.pid <= 1 || daemon.boot_id != BootId()) return false;
  waitpid(daemon.pid, nullptr, WNOHANG);  // when it is our own child
  const auto stat = ReadStat(daemon.pid);
  return stat.has_value() && stat->start_ticks == daemon.start_ticks && stat->state != 'Z' &&
         stat->state != 'X';
}

absl::Status StopDaemon(const Daemon& daemon, absl::Duration grace) {
  for (const int signal : {SIGTERM, SIGKILL}) {
    if (!IsRunning(daemon)) return absl::OkStatus();
    if (kill(daemon.pid, signal) != 0 && errno != ESRCH) {
      return absl::FailedPreconditionError(absl::StrCat("cannot stop the ", daemon.name, ", pid ",
                                                        daemon.pid, ": ", std::strerror(errno)));
    }
    const absl::Time deadline = absl::Now() + grace;
    while (IsRunning(daemon) && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(20));
  }
  if (!IsRunning(daemon)) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the ", daemon.name, ", pid ", daemon.pid, ", does not end"));
}

std::vector<std::string> LastLines(const std::string& file, size_t count) {
  std::deque<std::string> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    lines.push_back(line.substr(0, 400));
    if (lines.size() > count) lines.pop_front();
  }
  return {lines.begin(), lines.end()};
}

}  // namespace switchyard::coordinator
