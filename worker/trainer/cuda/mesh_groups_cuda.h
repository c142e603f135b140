// Connects a rank with a GPU to its groups of the mesh: world, ep and edp, and to the window of its
// ep group. The counterpart of comm/mesh_groups.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/mesh.h"
#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/cuda/nccl_communicator.h"
#include "worker/trainer/cuda/nccl_session.h"
#include "worker/trainer/cuda/peer_window.h"

namespace switchyard::trainer {

struct CudaMeshGroupsOptions {
  std::string rendezvous_id;  // of NewNcclRendezvousId, made by rank 0; not needed by a single rank
  int rank = 0;
  int device = 0;
  int64_t window_bytes = 0;  // of the ep window, one rank; 0 for none
  // As in NcclSession::Options.
  std::chrono::milliseconds time_limit = std::chrono::minutes(5);
  std::chrono::milliseconds join_limit = kStartLimit;
};

// Members are destroyed in the reverse order.
struct CudaMeshGroups {
  std::shared_ptr<NcclSession> session;  // null for a single rank
  MeshCommunicators communicators;
  NcclCommunicator* ep = nullptr;      // communicators.ep; null when ep is 1
  std::unique_ptr<PeerWindow> window;  // null when ep is 1, window_bytes 0, or peers out of reach
  std::string why_no_window;           // of the last case
  // Throws PeerLost when a peer is lost; see NcclSession::Check.
  void Check() const {
    if (session != nullptr) session->Check();
  }
};

// Every rank of the mesh calls it. Throws as NcclSession::Join and PeerWindow.
CudaMeshGroups JoinCudaMeshGroups(const Mesh& mesh, const CudaMeshGroupsOptions& options);

}  // namespace switchyard::trainer
