// Connects a rank to its groups of the mesh: world, ep and edp, and to the window of its ep group.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/mesh.h"
#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/comm/symmetric_window.h"

namespace switchyard::trainer {

struct MeshGroupsOptions {
  std::string job_uid;  // letters, digits, '-', '_'
  int64_t epoch = 0;    // attempt
  std::string token;    // rendezvous id of the attempt, letters and digits
  int rank = 0;
  int64_t window_bytes = 0;  // of the ep window, one rank; 0 for none
};

struct MeshGroups {
  MeshCommunicators communicators;
  std::unique_ptr<SymmetricWindow> window;  // null when ep is 1 or window_bytes 0
};

// Joins the groups over shared memory; every rank of the mesh calls it. Throws as ShmGroup::Join.
MeshGroups JoinMeshGroups(const Mesh& mesh, const MeshGroupsOptions& options);

// A fresh rendezvous id: 32 hexadecimal digits from the kernel's random source.
std::string NewRendezvousToken();

// Removes what an attempt that was killed while its ranks joined left in /dev/shm. No rank of it
// may be alive.
void RemoveSegments(const std::string& job_uid, int64_t epoch);

// Shared memory that JoinMeshGroups maps on one rank for communication besides the window: bytes.
int64_t StagingBytes(int world_size, int expert_parallel);

}  // namespace switchyard::trainer
