#include "worker/agent/process/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/agent/process/pidfd.h"

namespace switchyard::agent {
namespace {

absl::Status SystemError(const std::string& what, int error) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(error)));
}

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

// Both ends close-on-exec and above the numbers that the child uses, so that no dup2 there hits
// another's source.
absl::StatusOr<Pipe> MakePipe(bool parent_reads) {
  int raw[2];
  if (pipe2(raw, O_CLOEXEC) != 0) return SystemError("cannot create a pipe", errno);
  UniqueFd low_read(raw[0]), low_write(raw[1]);
  Pipe pipe{UniqueFd(fcntl(raw[0], F_DUPFD_CLOEXEC, 10)),
            UniqueFd(fcntl(raw[1], F_DUPFD_CLOEXEC, 10))};
  if (!pipe.read.valid() || !pipe.write.valid()) return SystemError("cannot create a pipe", errno);
  // Non-blocking only on our side: the flag belongs to the open file, each end of a pipe is its
  // own.
  const int ours = parent_reads ? pipe.read.get() : pipe.write.get();
  if (fcntl(ours, F_SETFL, O_NONBLOCK) != 0) return SystemError("cannot set up a pipe", errno);
  return pipe;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (auto& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

absl::StatusOr<SpawnedProcess> Spawn(const SpawnRequest& request) {
  SWITCHYARD_ASSIGN_OR_RETURN(Pipe log, MakePipe(true));
  SWITCHYARD_ASSIGN_OR_RETURN(Pipe lines, MakePipe(true));
  SWITCHYARD_ASSIGN_OR_RETURN(Pipe commands, MakePipe(false));
  const bool trainer = request.channel == Channel::kTrainer;

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  absl::Cleanup destroy_actions = [&] { posix_spawn_file_actions_destroy(&actions); };
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, trainer ? log.write.get() : lines.write.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, log.write.get(), 2);
  if (trainer) {
    posix_spawn_file_actions_adddup2(&actions, lines.write.get(), 3);
    posix_spawn_file_actions_adddup2(&actions, commands.read.get(), 4);
  }
  posix_spawn_file_actions_addclosefrom_np(&actions, trainer ? 5 : 3);
  posix_spawn_file_actions_addchdir_np(&actions, request.directory.c_str());

  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  absl::Cleanup destroy_attributes = [&] { posix_spawnattr_destroy(&attributes); };
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setpgroup(&attributes, request.group);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::vector<std::string> arguments = {request.program};
  arguments.insert(arguments.end(), request.arguments.begin(), request.arguments.end());
  std::vector<std::string> environment = request.environment;
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, request.program.c_str(), &actions, &attributes,
                                 Pointers(arguments).data(), Pointers(environment).data());
  if (error != 0) {
    return SystemError(absl::StrCat("cannot start ", request.program, " in ", request.directory),
                       error);
  }
  UniqueFd pidfd(PidfdOpen(pid));
  if (!pidfd.valid()) {
    const int reason = errno;
    kill(pid, SIGKILL);
    waitid(P_PID, static_cast<id_t>(pid), nullptr, WEXITED);
    return SystemError("cannot watch the new process (pidfd_open)", reason);
  }
  SpawnedProcess process;
  process.pid = pid;
  process.pidfd = std::move(pidfd);
  process.log = std::move(log.read);
  process.lines = std::move(lines.read);
  if (trainer) process.commands = std::move(commands.write);
  return process;
}

}  // namespace switchyard::agent
