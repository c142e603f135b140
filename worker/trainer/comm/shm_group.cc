#include "worker/trainer/comm/shm_group.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <new>
#include <stdexcept>
#include <thread>

#include "absl/strings/str_format.h"
#include "common/check.h"
#include "worker/trainer/comm/communicator.h"

namespace switchyard::trainer {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr uint32_t kReady = 0x53575942;
constexpr int64_t kPage = 4096;
constexpr milliseconds kLivenessInterval{100};

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// The words are shared between processes: no FUTEX_PRIVATE_FLAG.
void FutexWait(std::atomic<uint32_t>& word, uint32_t expected, milliseconds limit) {
  timespec timeout{limit.count() / 1000, (limit.count() % 1000) * 1000000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, expected, &timeout, nullptr,
          0);
}

void FutexWakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

bool Reached(uint32_t value, uint32_t target) {
  return static_cast<int32_t>(value - target) >= 0;  // counters may wrap
}

void AddOne(ShmCounter& counter) {
  counter.value.fetch_add(1);
  if (counter.waiters.load() > 0) FutexWakeAll(counter.value);
}

// Counts this thread among the waiters while it lives.
class WaiterCount {
 public:
  explicit WaiterCount(ShmCounter& counter) : counter_(counter) { counter_.waiters.fetch_add(1); }
  ~WaiterCount() { counter_.waiters.fetch_sub(1); }
  WaiterCount(const WaiterCount&) = delete;
  WaiterCount& operator=(const WaiterCount&) = delete;

 private:
  ShmCounter& counter_;
};

struct flock MemberByte(int rank, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = rank;
  lock.l_len = 1;
  return lock;
}

[[noreturn]] void Fail(const std::string& what, int error) {
  throw std::runtime_error(absl::StrFormat("%s: %s", what, std::strerror(error)));
}

}  // namespace

struct ShmGroup::Header {
  std::atomic<uint32_t> ready{0};
  ShmCounter joined;
  ShmCounter barrier;
  std::atomic<int32_t> pid[kMaxRanks];
  ShmCounter flag[kMaxRanks][kMaxRanks][kFlags];  // [to][from][flag]
};

int64_t ShmGroup::SegmentBytes(int size, int64_t staging_bytes, int64_t window_bytes) {
  return RoundUp(sizeof(Header), kPage) +
         size * (RoundUp(2 * staging_bytes, kPage) + RoundUp(window_bytes, kPage));
}

std::shared_ptr<ShmGroup> ShmGroup::Join(const ShmGroupOptions& options) {
  SWITCHYARD_CHECK(options.size >= 1 && options.size <= kMaxRanks, "group size");
  SWITCHYARD_CHECK(options.rank >= 0 && options.rank < options.size, "rank in group");
  std::shared_ptr<ShmGroup> group(new ShmGroup(options));
  if (options.rank == 0) {
    group->Create();
  } else {
    group->Open();
  }
  group->AwaitMembers();
  return group;
}

ShmGroup::~ShmGroup() {
  if (base_ != nullptr) {
    munmap(base_, SegmentBytes(size(), options_.staging_bytes, options_.window_bytes));
  }
}

void ShmGroup::Create() {
  const std::string path = "/" + options_.name;
  const int64_t bytes = SegmentBytes(size(), options_.staging_bytes, options_.window_bytes);
  fd_.Reset(shm_open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!fd_.valid()) Fail("cannot create shared memory " + path, errno);
  // Waiters of Open() look at the size, so it appears only with all the room it needs.
  if (const int error = posix_fallocate(fd_.get(), 0, bytes); error != 0) {
    shm_unlink(path.c_str());
    Fail(absl::StrFormat("cannot reserve %d bytes of shared memory %s; free or enlarge /dev/shm",
                         bytes, path),
         error);
  }
  Map();
  new (header_) Header;
  header_->ready.store(kReady);
}

void ShmGroup::Open() {
  const std::string path = "/" + options_.name;
  const int64_t bytes = SegmentBytes(size(), options_.staging_bytes, options_.window_bytes);
  const auto deadline = steady_clock::now() + options_.join_limit;
  while (true) {
    if (!fd_.valid()) fd_.Reset(shm_open(path.c_str(), O_RDWR | O_CLOEXEC, 0600));
    if (!fd_.valid() && errno != ENOENT) Fail("cannot open shared memory " + path, errno);
    struct stat status = {};
    if (fd_.valid() && fstat(fd_.get(), &status) == 0 && status.st_size >= bytes) {
      if (base_ == nullptr) Map();
      if (header_->ready.load() == kReady) return;
    }
    if (steady_clock::now() > deadline) {
      throw PeerLost(absl::StrFormat("rank 0 of %s did not create it within %d s", options_.name,
                                     options_.join_limit.count() / 1000));
    }
    std::this_thread::sleep_for(milliseconds(2));
  }
}

void ShmGroup::Map() {
  const int64_t bytes = SegmentBytes(size(), options_.staging_bytes, options_.window_bytes);
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (address == MAP_FAILED) Fail("cannot map shared memory " + options_.name, errno);
  base_ = static_cast<std::byte*>(address);
  header_ = reinterpret_cast<Header*>(base_);
}

void ShmGroup::AwaitMembers() {
  struct flock lock = MemberByte(rank(), F_WRLCK);
  // Of the open file description: not inherited away by closing another descriptor of the same
  // file.
  if (fcntl(fd_.get(), F_OFD_SETLK, &lock) != 0) {
    Fail(absl::StrFormat("rank %d of %s is taken by another process", rank(), options_.name),
         errno);
  }
  header_->pid[rank()].store(getpid());
  AddOne(header_->joined);
  const auto deadline = steady_clock::now() + options_.join_limit;
  WaiterCount waiting(header_->joined);
  while (true) {
    const uint32_t joined = header_->joined.value.load();
    if (Reached(joined, size())) break;
    if (steady_clock::now() > deadline) {
      throw PeerLost(absl::StrFormat("only %d of %d ranks joined %s within %d s", joined, size(),
                                     options_.name, options_.join_limit.count() / 1000));
    }
    FutexWait(header_->joined.value, joined, kLivenessInterval);
  }
  if (rank() == 0) shm_unlink(("/" + options_.name).c_str());
}

std::byte* ShmGroup::staging(int rank, int buffer) {
  return base_ + RoundUp(sizeof(Header), kPage) +
         rank * RoundUp(2 * options_.staging_bytes, kPage) + buffer * options_.staging_bytes;
}

std::byte* ShmGroup::window(int rank) {
  return base_ + RoundUp(sizeof(Header), kPage) +
         size() * RoundUp(2 * options_.staging_bytes, kPage) +
         rank * RoundUp(options_.window_bytes, kPage);
}

bool ShmGroup::IsLost(int rank) const {
  struct flock lock = MemberByte(rank, F_WRLCK);
  return fcntl(fd_.get(), F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

void ShmGroup::Await(ShmCounter& counter, uint32_t target, int from) {
  if (Reached(counter.value.load(std::memory_order_acquire), target)) return;
  const auto begin = steady_clock::now();
  WaiterCount waiting(counter);
  auto last_look = begin;
  while (true) {
    const uint32_t value = counter.value.load();
    if (Reached(value, target)) return;
    FutexWait(counter.value, value, kLivenessInterval);
    const auto now = steady_clock::now();
    if (now - last_look < kLivenessInterval) continue;
    last_look = now;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank() || (from >= 0 && peer != from) || !IsLost(peer)) continue;
      if (Reached(counter.value.load(), target)) return;  // it did its part before it ended
      throw PeerLost(absl::StrFormat("rank %d of %s (pid %d) is gone", peer, options_.name,
                                     header_->pid[peer].load()));
    }
    if (now - begin > options_.wait_limit) {
      throw PeerLost(absl::StrFormat("%s of %s was silent for %d s",
                                     from >= 0 ? absl::StrFormat("rank %d", from) : "a rank",
                                     options_.name, options_.wait_limit.count() / 1000));
    }
  }
}

void ShmGroup::Barrier() {
  ++barriers_;
  const uint32_t target = barriers_ * static_cast<uint32_t>(size());
  ShmCounter& counter = header_->barrier;
  if (counter.value.fetch_add(1) + 1 == target) {
    if (counter.waiters.load() > 0) FutexWakeAll(counter.value);
    return;
  }
  Await(counter, target, -1);
}

void ShmGroup::Signal(int to, int flag) { AddOne(header_->flag[to][rank()][flag]); }

void ShmGroup::Wait(int from, int flag) {
  Await(header_->flag[rank()][from][flag], ++awaited_[from][flag], from);
}

}  // namespace switchyard::trainer
