// The one use of NCCL's device API: where a window's regions lie in this device's address space.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

namespace switchyard::trainer {

// Ranks of `comm` that map each other's memory with this one; to be asked after a window was
// registered.
int RanksInReach(ncclComm_t comm);

// peer[r] = address of rank r's region, r < size; every rank must be in the group of ranks that map
// each other.
cudaError_t WriteWindowPeers(ncclWindow_t window, int size, void** peer, cudaStream_t stream);

}  // namespace switchyard::trainer
