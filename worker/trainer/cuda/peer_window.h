// A buffer on every GPU of a group that all of them map: plain device pointers for our kernels.
//
// Memory of the CUDA runtime, handed to the other processes of the host as IPC handles, which
// travel over the group's communicator. Flags and their order are the kernels' business
// (kernels/dispatch.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/trainer/cuda/nccl_communicator.h"

namespace switchyard::trainer {

class PeerWindow {
 public:
  // Collective, with the same `bytes` on all ranks; waits for the device. The memory is zero
  // everywhere when any rank's call returns. `group` must outlive the window. Null on every rank,
  // with `why_not` set, when some ranks cannot map each other: other hosts, no peer access. Throws
  // PeerLost, or std::runtime_error when device memory is short.
  static std::unique_ptr<PeerWindow> Map(NcclCommunicator& group, int64_t bytes,
                                         std::string* why_not);
  // Collective too: no rank gives its memory back before all have let go of it. A rank that has
  // lost a peer, or fails itself, leaves it to the end of the process.
  ~PeerWindow();
  PeerWindow(const PeerWindow&) = delete;
  PeerWindow& operator=(const PeerWindow&) = delete;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(peers_.size()); }
  int64_t bytes() const { return bytes_; }
  // Address on this rank's device of the region of `rank`; 512-byte aligned.
  std::byte* peer(int rank) const { return peers_[rank]; }
  const std::shared_ptr<NcclSession>& session() const { return group_.shared_session(); }

 private:
  PeerWindow(NcclCommunicator& group, int64_t bytes)
      : group_(group), rank_(group.rank()), bytes_(bytes), peers_(group.size()) {}

  NcclCommunicator& group_;
  int rank_;
  int64_t bytes_;
  std::vector<std::byte*> peers_;
};

}  // namespace switchyard::trainer
