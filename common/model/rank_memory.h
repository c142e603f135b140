// Bytes that one rank needs, by category: the one arithmetic that the planner prints and the
// trainer allocates.
//
// The trainer has three arenas (state, slots, workspace) with exactly these sizes and nothing else
// of weight. Slot i holds what decoder layer i saves for its backward; once layer i is through its
// backward, the parameter gradients of layer i - 1 take its place. The last slot, num_layers, first
// holds the output of the last layer. With gradient accumulation gradients have float32 buffers of
// their own. So saving less makes a slot smaller only while it is larger than those gradients.
//
// Pure; knows nothing of nodes, free memory or time. What a process needs before any model
// (libraries, CUDA context) is the planner's "runtime_baseline".
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/model/activation_memory.h"
#include "common/model/dispatch_window.h"
#include "common/model/model_shape.h"

namespace switchyard {

enum class Precision { kFloat32, kBfloat16 };      // parameters and activations
enum class OptimizerProfile { kExact, kCompact };  // kCompact needs kBfloat16
enum class DeviceKind { kCpu, kCuda };

struct RankMemoryInput {
  ModelShape model;
  int64_t ranks = 1;                  // W
  int64_t expert_parallel = 1;        // ep: divides W and the number of experts
  int64_t micro_batch_sequences = 1;  // B
  int64_t sequence_length = 1;        // S
  int64_t gradient_accumulation = 1;  // micro-batches of one optimizer step
  Precision precision = Precision::kFloat32;
  OptimizerProfile optimizer = OptimizerProfile::kExact;
  DeviceKind device = DeviceKind::kCpu;
  bool deterministic = false;  // attention of packed documents, on a GPU
  // What layers save. Without a value: kSaveAll where that needs no more bytes than
  // kRecomputeRows (the rows then lie where gradients come anyway), else kRecomputeRows.
  std::optional<ActivationMemory> activations = std::nullopt;
};

// All in bytes. Sums saturate at kTooManyBytes instead of overflowing.
struct RankMemory {
  // The categories of switchyard.v1.MemoryCategory, without "runtime_baseline".
  int64_t parameters = 0;  // replicated ones and this rank's experts
  int64_t gradients = 0;   // beyond what fits where activations lay
  int64_t optimizer = 0;   // this rank's ZeRO-1 shards
  int64_t saved_activations = 0;
  int64_t workspace = 0;
  int64_t windows = 0;  // this rank's region of the dispatch window; 0 when expert_parallel is 1
  int64_t logits = 0;   // one chunk
  // Outside the arenas, planned for few documents a micro-batch; the data may want more
  // (common/model/packed_attention.h). 0 unless deterministic on a GPU.
  int64_t deterministic_scratch = 0;
  int64_t Total() const;

  // What the arenas are made of.
  std::vector<int64_t> slot_bytes;        // [num_layers + 1]
  int64_t outer_gradient_bytes = 0;       // embedding, final norm, head; 0 with accumulation
  int64_t persistent_gradient_bytes = 0;  // float32, all parameters; 0 without accumulation
  ActivationMemory activations = ActivationMemory::kRecomputeRows;  // what the sizes are for
  // Rows whose gate/up is at hand at once: saved, or recomputed together. Those beyond are
  // recomputed whatever `activations` says.
  int64_t row_capacity = 0;
  int64_t max_rows = 0;  // rows of the worst routing
  int64_t logits_chunk_rows = 0;
  // Whether ranks exchange the rows that the embedding's gradient sums, and not the whole table.
  bool gathers_embedding_rows = false;
};

// Of RankMemory. Without accumulation, and with a head of its own, the gradient of the embedding
// has at most W * T rows that are not 0: gathering them moves (W - 1) * T rows to each rank, a
// reduce-scatter (W - 1) / W * V. Chosen where that at least halves the rows moved.
bool GathersEmbeddingRows(const RankMemoryInput& input);

// Tokens whose rows of the embedding's gradient are summed as one part where an id has many
// (kernels/embedding_gradient.h); parts need room.
inline constexpr int64_t kEmbeddingPiece = 16;

// Planned scratch of attention's backward on a GPU, bytes an element of the attention output.
// Measured for cuDNN 9.19: 8 for whole sequences, 13 for packed documents.
inline constexpr int64_t kAttentionScratch = 14;
// The deterministic backward's, beside DeterministicScratchBytes (packed_attention.h); measured: 8.
inline constexpr int64_t kDeterministicAttentionScratch = 9;
// Bytes that the deterministic backward wants of its own, with `documents_bytes` for the documents
// and `elements` of attention output: 0 where it finds room in the workspace.
int64_t DeterministicAttentionBytes(int64_t documents_bytes, int64_t elements);

inline constexpr int64_t kTooManyBytes = int64_t{1} << 60;

// `input` must be consistent: positive sizes, ep divides W and the number of experts (1 without
// experts).
RankMemory ComputeRankMemory(const RankMemoryInput& input);

// Bytes that the dispatchers of an ep group of GPUs keep of one layer's routing of `tokens` tokens
// until its backward; `shape` as the dispatcher was made with.
int64_t ExchangeRoutingBytes(const DispatchWindowShape& shape, int64_t num_experts, int64_t tokens);

}  // namespace switchyard
