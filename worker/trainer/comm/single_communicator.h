// The communicator of a group of one rank: sums are copies, nothing waits.
#pragma once

#include <memory>

#include "worker/trainer/comm/communicator.h"

namespace switchyard::trainer {

std::unique_ptr<Communicator> MakeSingleCommunicator(at::Device device = at::kCPU);
// All three groups of a mesh of one rank.
MeshCommunicators MakeSingleMeshCommunicators(at::Device device = at::kCPU);

}  // namespace switchyard::trainer
