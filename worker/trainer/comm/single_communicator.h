// The communicator of a group of one rank: sums are copies, nothing waits.
#pragma once

#include <memory>

#include "worker/trainer/comm/communicator.h"

namespace switchyard::trainer {

std::unique_ptr<Communicator> MakeSingleCommunicator();
// All three groups of a mesh of one rank.
MeshCommunicators MakeSingleMeshCommunicators();

}  // namespace switchyard::trainer
