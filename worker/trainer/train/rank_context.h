// A rank that is connected to its peers and has its model in memory: what `run`, `check` and
// `bench` start from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "common/mesh.h"
#include "common/model/model_shape.h"
#include "common/model/rank_memory.h"
#include "worker/trainer/comm/mesh_groups.h"
#include "worker/trainer/model/decoder.h"
#include "worker/trainer/moe/token_dispatcher.h"
#include "worker/trainer/train/device_backend.h"

namespace switchyard::trainer {

struct RankOptions {
  ModelShape shape;
  int64_t ranks = 1;
  int64_t expert_parallel = 1;
  int rank = 0;
  // "router": the model decides; "scattered" and "consecutive" route by position (`bench`,
  // routing_override.h).
  std::string gate = "router";
  std::string device = "cpu";  // "cuda": this program must have a GpuBackend
  bool deterministic = false;  // always so on CPU
  Precision precision = Precision::kFloat32;
  OptimizerProfile optimizer = OptimizerProfile::kExact;
  int64_t micro_batch_sequences = 1;
  int64_t sequence_length = 1;
  int64_t gradient_accumulation = 1;
  std::optional<ActivationMemory> activations;  // as in RankMemoryInput
  // Names of the shared memory; the same on all ranks.
  std::string job_uid = "local";
  int64_t epoch = 1;
  std::string rendezvous_id;  // not needed by a single rank
};

// Members are destroyed in reverse order: the decoder before what it borrows.
struct RankContext {
  MeshGroups groups;                            // on CPU
  std::unique_ptr<DeviceGroups> device_groups;  // on a GPU
  std::unique_ptr<TokenDispatcher> dispatcher;  // null for a model without MoE layers
  std::unique_ptr<Decoder> decoder;             // values not initialised

  MeshCommunicators& communicators() {
    return device_groups != nullptr ? device_groups->communicators() : groups.communicators;
  }
};

// Throws TrainerError(kConfig) with every reason why GPUs, when they are asked for, could not train
// this. Needs no GPU.
void RefuseWhatNoGpuTrains(const RankOptions& options);

// Collective. Throws TrainerError(kConfig) when the mesh does not fit the model or no GPU could
// train it, PeerLost, c10::Error.
std::unique_ptr<RankContext> ConnectRank(const RankOptions& options);

// Threads for one of `local_ranks` processes: `wanted`, or the usable cores shared out, at least 1.
// Applies it to torch.
int SetThreads(int64_t wanted, int64_t local_ranks);

// Largest resident size of this process so far (VmHWM), bytes; 0 when unknown.
int64_t PeakMemoryBytes();

}  // namespace switchyard::trainer
