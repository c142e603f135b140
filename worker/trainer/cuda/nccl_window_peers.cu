#include <nccl_device.h>

#include "worker/trainer/cuda/nccl_window_peers.h"

namespace switchyard::trainer {
namespace {

__global__ void PeersKernel(ncclWindow_t window, int size, void** peer) {
  for (int r = 0; r < size; ++r) peer[r] = ncclGetLsaPointer(window, 0, r);
}

}  // namespace

int RanksInReach(ncclComm_t comm) { return ncclTeamLsa(comm).nRanks; }

cudaError_t WriteWindowPeers(ncclWindow_t window, int size, void** peer, cudaStream_t stream) {
  PeersKernel<<<1, 1, 0, stream>>>(window, size, peer);
  return cudaGetLastError();
}

}  // namespace switchyard::trainer
