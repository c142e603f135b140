#include "coordinator/launch/run_command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/unique_fd.h"

extern char** environ;

namespace switchyard::coordinator {
namespace {

constexpr size_t kMaxOutput = 16 << 20;

// A file in memory that holds `text`, to be read from its beginning.
UniqueFd InputFile(const std::string& text) {
  UniqueFd fd(memfd_create("input", MFD_CLOEXEC));
  size_t written = 0;
  while (fd.valid() && written < text.size()) {
    const ssize_t count = write(fd.get(), text.data() + written, text.size() - written);
    if (count <= 0) return UniqueFd();
    written += static_cast<size_t>(count);
  }
  if (fd.valid()) lseek(fd.get(), 0, SEEK_SET);
  return fd;
}

// Reads both pipes until their ends; false when `deadline` came first.
bool ReadAll(std::array<UniqueFd, 2>& pipes, std::array<std::string*, 2> texts,
             std::chrono::steady_clock::time_point deadline) {
  while (pipes[0].valid() || pipes[1].valid()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    std::array<pollfd, 2> polled{};
    for (size_t i = 0; i < 2; ++i) polled[i] = {pipes[i].get(), POLLIN, 0};
    if (poll(polled.data(), polled.size(), static_cast<int>(left.count())) < 0 && errno != EINTR) {
      return false;
    }
    for (size_t i = 0; i < 2; ++i) {
      if (!pipes[i].valid() || polled[i].revents == 0) continue;
      char buffer[8192];
      const ssize_t count = read(pipes[i].get(), buffer, sizeof(buffer));
      if (count <= 0) {
        pipes[i].Reset();
      } else if (texts[i]->size() < kMaxOutput) {
        texts[i]->append(buffer, static_cast<size_t>(count));
      }
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<CommandResult> RunCommand(const std::vector<std::string>& command,
                                         const std::string& input,
                                         std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const UniqueFd in = InputFile(input);
  std::array<UniqueFd, 2> read_ends, write_ends;
  for (size_t i = 0; i < 2; ++i) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return absl::ResourceExhaustedError("no pipe is to be had");
    read_ends[i] = UniqueFd(ends[0]);
    write_ends[i] = UniqueFd(ends[1]);
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, write_ends[0].get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, write_ends[1].get(), STDERR_FILENO);
  // The coordinator blocks signals in all threads; a tool must hear them.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  std::vector<std::string> words = command;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return absl::NotFoundError(absl::StrCat("cannot start ", command[0], ": ", strerror(error)));
  }
  for (UniqueFd& end : write_ends) end.Reset();
  CommandResult result;
  const bool ended = ReadAll(read_ends, {&result.output, &result.errors}, deadline);
  if (!ended) kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!ended) {
    return absl::DeadlineExceededError(
        absl::StrCat(command[0], " did not end within ", timeout.count() / 1000, " s"));
  }
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace switchyard::coordinator
