// Which sequences an optimizer step takes, and which rank takes which of them.
//
// Every epoch has a permutation of the data, keyed by the seed. Step s of an epoch takes G
// sequences of it by global index, whatever the mesh; the epoch's last batch is filled with empty
// sequences. A batch is dealt in order: accumulation index a holds its sequences a*W*B .. (a+1)*W*B
// - 1, of which rank r takes B from r*B on. Nothing but the step number is needed to resume. Pure
// arithmetic; knows nothing of tokens.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::trainer {

inline constexpr int64_t kEmptySequence = -1;

struct BatchOrderOptions {
  int64_t num_sequences = 0;  // of the data, at least 1
  int64_t global_batch = 1;   // G
  int64_t ranks = 1;          // W
  int64_t micro_batch = 1;    // B
  int64_t seed = 0;
};

class BatchOrder {
 public:
  explicit BatchOrder(const BatchOrderOptions& options);

  int64_t steps_per_epoch() const;
  // Micro-batches of a rank in one step: G / (W B), rounded up.
  int64_t accumulation_steps() const;

  // Sequences of 0-based step `step` of the whole job, [G]; kEmptySequence for none.
  std::vector<int64_t> GlobalBatch(int64_t step);
  // What `rank` takes of it at accumulation index `index`, [B].
  std::vector<int64_t> MicroBatch(int64_t step, int64_t index, int64_t rank);

 private:
  void Shuffle(int64_t epoch);

  BatchOrderOptions options_;
  int64_t epoch_ = -1;
  std::vector<int64_t> permutation_;  // of epoch_
};

}  // namespace switchyard::trainer
