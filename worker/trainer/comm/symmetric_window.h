// A buffer that every rank of a group maps, with flags to order its use.
//
// Each rank owns a region of `bytes`; peer(r) is region r in this process's address space. CPU: one
// POSIX shared-memory segment a group; GPU: ncclMemAlloc + ncclCommWindowRegister. The protocol is
// the same on both: a rank writes into a peer's region, then Signal()s the peer; the peer Wait()s
// before it reads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard::trainer {

class SymmetricWindow {
 public:
  virtual ~SymmetricWindow() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Bytes of one rank's region.
  virtual int64_t bytes() const = 0;
  // Region of `rank`; own region for the own rank. 64-byte aligned.
  virtual std::byte* peer(int rank) = 0;

  // Adds one to flag `flag` (0 <= flag < kNumFlags) that this rank holds at `to`. Everything this
  // rank wrote before is visible to `to` after its matching Wait.
  virtual void Signal(int to, int flag) = 0;
  // Waits until rank `from` has signalled `flag` once more than this rank has waited for it before.
  // Blocks in the kernel (futex), never spins for long. Throws PeerLost at the time limit.
  virtual void Wait(int from, int flag) = 0;

  static constexpr int kNumFlags = 16;
};

}  // namespace switchyard::trainer
