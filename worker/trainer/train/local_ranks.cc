#include "worker/trainer/train/local_ranks.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "absl/strings/str_format.h"
#include "common/unique_fd.h"
#include "worker/trainer/train/exit_code.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

struct Rank {
  pid_t pid = 0;
  UniqueFd report;   // reads its fd 3
  UniqueFd control;  // writes its fd 4
  std::string pending;
  std::string exit_code, exit_message;  // of its `exit` line
};

// Ends of a pipe, both closed on exec and above the descriptors that a rank is given.
std::pair<UniqueFd, UniqueFd> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    throw std::runtime_error(absl::StrFormat("pipe: %s", strerror(errno)));
  UniqueFd low_read(ends[0]), low_write(ends[1]);
  return {UniqueFd(fcntl(ends[0], F_DUPFD_CLOEXEC, 10)),
          UniqueFd(fcntl(ends[1], F_DUPFD_CLOEXEC, 10))};
}

class LocalRanks {
 public:
  explicit LocalRanks(const LocalRanksOptions& options) : options_(options), ranks_(options.ranks) {
    for (int r = 0; r < options.ranks; ++r) Start(r);
  }
  ~LocalRanks() {
    KillAll();
    for (Rank& rank : ranks_) {
      if (rank.pid > 0) waitpid(rank.pid, nullptr, 0);
    }
  }

  int Run() {
    for (int open = options_.ranks; open > 0;) {
      std::vector<pollfd> polls;
      for (const Rank& rank : ranks_)
        polls.push_back({rank.report.get(), POLLIN, 0});  // closed: fd -1, ignored
      if (poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR) break;
      for (size_t r = 0; r < polls.size(); ++r) {
        if (polls[r].revents != 0 && !Read(static_cast<int>(r))) {
          Reap(static_cast<int>(r));
          --open;
        }
      }
    }
    return first_failure_;
  }

 private:
  void Start(int r) {
    auto [report_read, report_write] = MakePipe();
    auto [control_read, control_write] = MakePipe();
    std::vector<std::string> arguments = {"switchyard-trainer"};
    arguments.insert(arguments.end(), options_.arguments.begin(), options_.arguments.end());
    arguments.insert(arguments.end(), {"--rank", std::to_string(r)});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, report_write.get(), 3);
    posix_spawn_file_actions_adddup2(&actions, control_read.get(), 4);
    posix_spawn_file_actions_addclosefrom_np(&actions, 5);
    const int error =
        posix_spawn(&ranks_[r].pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0)
      throw std::runtime_error(absl::StrFormat("cannot start rank %d: %s", r, strerror(error)));
    ranks_[r].report = std::move(report_read);
    ranks_[r].control = std::move(control_write);
  }

  // False at the end of file.
  bool Read(int r) {
    Rank& rank = ranks_[r];
    char buffer[65536];
    const ssize_t n = ::read(rank.report.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) return true;
    if (n <= 0) return false;
    rank.pending.append(buffer, static_cast<size_t>(n));
    for (size_t end = rank.pending.find('\n'); end != std::string::npos;
         end = rank.pending.find('\n')) {
      Take(r, rank.pending.substr(0, end));
      rank.pending.erase(0, end + 1);
    }
    return true;
  }

  void Take(int r, const std::string& line) {
    const json document = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!document.is_object()) return;
    if (document.contains("rendezvous")) {
      const std::string text = line + "\n";
      for (Rank& rank : ranks_) {
        // A rank that is gone is noticed by its end.
        if (::write(rank.control.get(), text.data(), text.size()) < 0) continue;
      }
    } else if (document.contains("exit")) {
      ranks_[r].exit_code = document["exit"].value("code", "");
      ranks_[r].exit_message = document["exit"].value("message", "");
    }
    if (options_.on_line) options_.on_line(r, line);
  }

  void Reap(int r) {
    Rank& rank = ranks_[r];
    rank.report.Reset();
    int status = 0;
    waitpid(rank.pid, &status, 0);
    rank.pid = 0;
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (code == 0 || (killed_ && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) return;
    const bool follows = code == ProcessExitCode(ExitCode::kPeerLost);
    if (first_failure_ != 0 && (follows || !first_follows_)) return;
    first_failure_ = code;
    first_follows_ = follows;
    std::fprintf(stderr, "rank %d ended with %s: %s\n", r,
                 rank.exit_code.empty() ? absl::StrFormat("exit code %d", code).c_str()
                                        : rank.exit_code.c_str(),
                 rank.exit_message.empty() ? "it said nothing" : rank.exit_message.c_str());
    // One that lost its peer may have noticed before the culprit's end was seen here.
    if (!follows) KillAll();
  }

  void KillAll() {
    killed_ = true;
    for (const Rank& rank : ranks_) {
      if (rank.pid > 0) kill(rank.pid, SIGKILL);
    }
  }

  const LocalRanksOptions& options_;
  std::vector<Rank> ranks_;
  int first_failure_ = 0;
  bool first_follows_ = false;
  bool killed_ = false;
};

}  // namespace

int RunLocalRanks(const LocalRanksOptions& options) {
  // OpenMP reads it when it is loaded: too late for this process, in time for the ranks.
  setenv("GOMP_SPINCOUNT", "1000", /*overwrite=*/0);
  return LocalRanks(options).Run();
}

}  // namespace switchyard::trainer
