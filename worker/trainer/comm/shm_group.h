// Processes of one machine that share one POSIX shared-memory segment: mapping, flags, barrier,
// lost peers.
//
// The segment is called /switchyard-<job_uid>-<epoch>-<token>-<group>. It is unlinked as soon as
// every member has mapped it; an agent that kills ranks while they join removes what is left in
// /dev/shm by the prefix `switchyard-<job_uid>-<epoch>-`. All room is taken at the start, so that a
// full /dev/shm is an error and never a SIGBUS.
//
// Every member holds a lock on one byte of the segment's file, which the kernel releases when the
// process ends however it ends. Waits sleep in a futex and look at these locks every 100 ms, so a
// killed peer is noticed within that time, also when it is still a zombie or lives in another pid
// namespace.
//
// Knows nothing of tensors.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/unique_fd.h"

namespace switchyard::trainer {

struct ShmGroupOptions {
  std::string name;  // of the segment, without the leading slash; the same for all members
  int rank = 0;      // in the group
  int size = 1;
  int64_t staging_bytes = 1 << 20;  // of one member and one of its two staging buffers
  int64_t window_bytes = 0;         // of one member's window region
  // How long to wait for the other members to appear.
  std::chrono::milliseconds join_limit = std::chrono::seconds(120);
  // How long a living peer may be silent. A dead one is noticed at once.
  std::chrono::milliseconds wait_limit = std::chrono::minutes(10);
};

// A counter that others wait for. Lies in the segment.
struct ShmCounter {
  std::atomic<uint32_t> value{0};
  std::atomic<uint32_t> waiters{0};
};

class ShmGroup {
 public:
  static constexpr int kMaxRanks = 64;
  static constexpr int kFlags = 16;

  // Returns when all members have mapped the segment. Throws PeerLost at the join limit and
  // std::runtime_error when the segment cannot be made (the message says how much room is needed).
  static std::shared_ptr<ShmGroup> Join(const ShmGroupOptions& options);
  ~ShmGroup();
  ShmGroup(const ShmGroup&) = delete;
  ShmGroup& operator=(const ShmGroup&) = delete;

  int rank() const { return options_.rank; }
  int size() const { return options_.size; }
  int64_t staging_bytes() const { return options_.staging_bytes; }
  int64_t window_bytes() const { return options_.window_bytes; }
  // Staging buffer `buffer` (0 or 1) of `rank`.
  std::byte* staging(int rank, int buffer);
  std::byte* window(int rank);

  // Returns when every member has called it as often as this one. Orders memory. Throws PeerLost.
  void Barrier();
  // See SymmetricWindow.
  void Signal(int to, int flag);
  void Wait(int from, int flag);

  // Bytes of a segment.
  static int64_t SegmentBytes(int size, int64_t staging_bytes, int64_t window_bytes);

 private:
  struct Header;

  explicit ShmGroup(const ShmGroupOptions& options) : options_(options) {}
  void Create();
  void Open();
  void Map();
  void AwaitMembers();
  // Waits until `counter` has reached `target`; `from` is the peer it depends on, -1 for all.
  void Await(ShmCounter& counter, uint32_t target, int from);
  bool IsLost(int rank) const;

  ShmGroupOptions options_;
  UniqueFd fd_;
  std::byte* base_ = nullptr;
  Header* header_ = nullptr;
  uint32_t barriers_ = 0;
  uint32_t awaited_[kMaxRanks][kFlags] = {};  // signals of a peer that this rank has waited for
};

}  // namespace switchyard::trainer
