#include "worker/trainer/cuda/mesh_groups_cuda.h"

#include <utility>

#include "worker/trainer/comm/single_communicator.h"

namespace switchyard::trainer {

CudaMeshGroups JoinCudaMeshGroups(const Mesh& mesh, const CudaMeshGroupsOptions& options) {
  CudaMeshGroups groups;
  groups.communicators = MakeSingleMeshCommunicators(
      at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(options.device)));
  const int world = mesh.world_size(), ep = mesh.expert_parallel();
  const int edp = mesh.expert_data_parallel();
  if (world == 1) return groups;
  groups.session = NcclSession::Join({.rendezvous_id = options.rendezvous_id,
                                      .rank = options.rank,
                                      .size = world,
                                      .device = options.device,
                                      .time_limit = options.time_limit,
                                      .join_limit = options.join_limit});
  const auto connect = [&](ncclComm_t comm, int rank, int size) {
    return std::make_unique<NcclCommunicator>(groups.session, comm, rank, size);
  };
  groups.communicators.world = connect(groups.session->world(), options.rank, world);
  const int ep_rank = mesh.ep_rank(options.rank), edp_rank = mesh.edp_rank(options.rank);
  if (ep > 1) {
    const ncclComm_t comm = groups.session->Split(edp_rank, ep_rank, "expert-parallel group");
    std::unique_ptr<NcclCommunicator> communicator = connect(comm, ep_rank, ep);
    groups.ep = communicator.get();
    groups.communicators.ep = std::move(communicator);
    if (options.window_bytes > 0) {
      groups.window = PeerWindow::Map(*groups.ep, options.window_bytes, &groups.why_no_window);
    }
  }
  if (edp > 1) {
    const ncclComm_t comm =
        groups.session->Split(ep_rank, edp_rank, "group of ranks with the same experts");
    groups.communicators.edp = connect(comm, edp_rank, edp);
  }
  return groups;
}

}  // namespace switchyard::trainer
