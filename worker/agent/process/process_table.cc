#include "worker/agent/process/process_table.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <vector>

#include "worker/agent/process/proc_fs.h"

namespace switchyard::agent {
namespace {

// Reads what is there, at most `limit` bytes, and hands it on. True at the end of the file.
template <typename Sink>
bool Drain(int fd, size_t limit, Sink sink) {
  std::array<char, 65536> buffer;
  for (size_t total = 0; total < limit;) {
    const ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno != EAGAIN;
    if (count == 0) return true;
    sink(absl::string_view(buffer.data(), static_cast<size_t>(count)));
    total += static_cast<size_t>(count);
  }
  return false;
}

constexpr size_t kPerTurn = 256 << 10;  // so that one talkative rank does not hold up the others
constexpr size_t kAtEnd = 64 << 20;     // a pipe holds less unless a descendant still writes

}  // namespace

ProcessTable::ProcessTable(Poller& poller, Callbacks callbacks)
    : poller_(poller), callbacks_(std::move(callbacks)) {
  // Descendants whose parent dies become our children, so that we can reap them.
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

ProcessTable::~ProcessTable() {
  for (auto& [key, process] : processes_) {
    ClosePipe(process.io.log);
    ClosePipe(process.io.lines);
    ClosePipe(process.io.commands);
    ClosePipe(process.io.pidfd);
  }
}

absl::StatusOr<pid_t> ProcessTable::Start(const ProcessKey& key, SpawnRequest request) {
  const GroupKey group_key = key.group();
  const auto known = groups_.find(group_key);
  request.group = known == groups_.end() ? 0 : known->second.pid;
  auto spawned = Spawn(request);
  if (!spawned.ok()) return spawned.status();
  const pid_t pid = spawned->pid;
  Group& group = groups_[group_key];
  if (group.pid == 0) group.pid = pid;
  ++group.running;
  Process& process = processes_[key];
  process.io = *std::move(spawned);
  poller_.Add(process.io.log.get(), EPOLLIN, [this, key](uint32_t) { ReadLog(key); });
  poller_.Add(process.io.lines.get(), EPOLLIN, [this, key](uint32_t) { ReadLines(key); });
  poller_.Add(process.io.pidfd.get(), EPOLLIN, [this, key](uint32_t) { OnEnded(key); });
  if (process.io.commands.valid()) {
    poller_.Add(process.io.commands.get(), 0, [this, key](uint32_t events) {
      // An error means that the process closed its end; it is reported for ever.
      const auto it = processes_.find(key);
      if ((events & (EPOLLERR | EPOLLHUP)) != 0 && it != processes_.end()) {
        ClosePipe(it->second.io.commands);
      } else {
        Flush(key);
      }
    });
  }
  return pid;
}

void ProcessTable::ClosePipe(UniqueFd& fd) {
  if (!fd.valid()) return;
  poller_.Remove(fd.get());
  fd.Reset();
}

void ProcessTable::ReadLog(const ProcessKey& key) {
  const auto it = processes_.find(key);
  if (it == processes_.end() || !it->second.io.log.valid()) return;
  if (Drain(it->second.io.log.get(), kPerTurn,
            [&](absl::string_view bytes) { callbacks_.on_output(key, bytes); })) {
    ClosePipe(it->second.io.log);
  }
}

void ProcessTable::ReadLines(const ProcessKey& key) {
  const auto it = processes_.find(key);
  if (it == processes_.end() || !it->second.io.lines.valid()) return;
  Process& process = it->second;
  const bool ended = Drain(process.io.lines.get(), kPerTurn, [&](absl::string_view bytes) {
    process.reader.Feed(
        bytes, [&](absl::string_view line) { callbacks_.on_line(key, line); },
        [&] { callbacks_.on_too_long_line(key); });
  });
  if (ended) ClosePipe(process.io.lines);
}

void ProcessTable::Write(const ProcessKey& key, const std::string& line) {
  const auto it = processes_.find(key);
  if (it == processes_.end() || !it->second.io.commands.valid()) return;
  if (it->second.queued.size() + line.size() > kMaxQueuedBytes) return;
  it->second.queued.append(line).push_back('\n');
  Flush(key);
}

void ProcessTable::Flush(const ProcessKey& key) {
  const auto it = processes_.find(key);
  if (it == processes_.end() || !it->second.io.commands.valid()) return;
  Process& process = it->second;
  while (!process.queued.empty()) {
    const ssize_t count =
        write(process.io.commands.get(), process.queued.data(), process.queued.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) {  // it closed its end
      ClosePipe(process.io.commands);
      process.queued.clear();
      return;
    }
    process.queued.erase(0, static_cast<size_t>(count));
  }
  poller_.Change(process.io.commands.get(),
                 process.queued.empty() ? 0u : static_cast<uint32_t>(EPOLLOUT));
}

void ProcessTable::OnEnded(const ProcessKey& key) {
  const auto it = processes_.find(key);
  if (it == processes_.end()) return;
  Process& process = it->second;
  siginfo_t info{};
  Group& group = groups_[key.group()];
  const bool leader = group.pid == process.io.pid;
  // The leader is only looked at; Poll reaps it with the rest of the group.
  const int options = WEXITED | WNOHANG | (leader ? static_cast<int>(WNOWAIT) : 0);
  if (waitid(P_PIDFD, static_cast<id_t>(process.io.pidfd.get()), &info, options) != 0 ||
      info.si_pid == 0)
    return;
  // What it wrote before its end is still in the pipes.
  if (process.io.log.valid()) {
    Drain(process.io.log.get(), kAtEnd,
          [&](absl::string_view bytes) { callbacks_.on_output(key, bytes); });
  }
  if (process.io.lines.valid()) {
    Drain(process.io.lines.get(), kAtEnd, [&](absl::string_view bytes) {
      process.reader.Feed(
          bytes, [&](absl::string_view line) { callbacks_.on_line(key, line); },
          [&] { callbacks_.on_too_long_line(key); });
    });
  }
  ClosePipe(process.io.log);
  ClosePipe(process.io.lines);
  ClosePipe(process.io.commands);
  ClosePipe(process.io.pidfd);
  processes_.erase(it);
  --group.running;
  const bool exited = info.si_code == CLD_EXITED;
  callbacks_.on_exit(key, exited ? info.si_status : 0, exited ? 0 : info.si_status);
}

void ProcessTable::Signal(const GroupKey& key, int signal) {
  const auto it = groups_.find(key);
  if (it != groups_.end()) kill(-it->second.pid, signal);
}

bool ProcessTable::polling() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const auto& item) { return item.second.running == 0; });
}

void ProcessTable::Poll() {
  std::vector<GroupKey> gone;
  for (const auto& [key, group] : groups_) {
    if (group.running == 0 && !GroupAlive(group.pid)) gone.push_back(key);
  }
  for (const GroupKey& key : gone) {
    siginfo_t info{};
    while (waitid(P_PGID, static_cast<id_t>(groups_[key].pid), &info, WEXITED | WNOHANG) == 0 &&
           info.si_pid != 0) {
      info = {};
    }
    groups_.erase(key);
    callbacks_.on_group_gone(key);
  }
}

void ProcessTable::ReapStrays() {
  for (const ProcStat& process : AllProcesses()) {
    const bool ours = std::any_of(groups_.begin(), groups_.end(), [&](const auto& item) {
      return item.second.pid == process.group;
    });
    if (process.alive() || process.parent != getpid() || ours) continue;
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(process.pid), &info, WEXITED | WNOHANG);
  }
}

std::optional<pid_t> ProcessTable::group_pid(const GroupKey& key) const {
  const auto it = groups_.find(key);
  if (it == groups_.end()) return std::nullopt;
  return it->second.pid;
}

}  // namespace switchyard::agent
