// A buffer on every GPU of a group that all of them map: plain device pointers for our kernels.
//
// NCCL registers the memory (symmetric window); its device API is asked once for the peers'
// addresses. Flags and their order are the kernels' business (kernels/dispatch.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "worker/trainer/cuda/nccl_session.h"

namespace switchyard::trainer {

class NcclWindow {
 public:
  // Collective over `comm` of `size` ranks, with the same `bytes` on all; waits for the device. The
  // memory is zero when any rank's constructor has returned. Throws PeerLost, or std::runtime_error
  // when memory is short or the ranks cannot all map each other (the text names the alternative).
  NcclWindow(std::shared_ptr<NcclSession> session, ncclComm_t comm, int rank, int size,
             int64_t bytes);
  ~NcclWindow();
  NcclWindow(const NcclWindow&) = delete;
  NcclWindow& operator=(const NcclWindow&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  int64_t bytes() const { return bytes_; }
  // Address on this rank's device of the region of `rank`.
  std::byte* peer(int rank) const { return peers_[rank]; }
  const std::shared_ptr<NcclSession>& session() const { return session_; }

 private:
  void Register();
  void FindPeers();

  std::shared_ptr<NcclSession> session_;
  ncclComm_t comm_;
  int rank_, size_;
  int64_t bytes_;
  void* memory_ = nullptr;
  ncclWindow_t window_ = nullptr;
  std::vector<std::byte*> peers_;
};

}  // namespace switchyard::trainer
