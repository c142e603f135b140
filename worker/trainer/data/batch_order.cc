#include "worker/trainer/data/batch_order.h"

#include <numeric>
#include <random>
#include <utility>

#include "common/check.h"

namespace switchyard::trainer {
namespace {

int64_t DivideUp(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Uniform in [0, bound), by rejection. std::uniform_int_distribution may differ between standard
// libraries.
uint64_t Below(std::mt19937_64& random, uint64_t bound) {
  const uint64_t limit = ~uint64_t{0} - ~uint64_t{0} % bound;
  while (true) {
    const uint64_t value = random();
    if (value < limit) return value % bound;
  }
}

}  // namespace

BatchOrder::BatchOrder(const BatchOrderOptions& options) : options_(options) {
  SWITCHYARD_CHECK(options.num_sequences >= 1, "no sequences");
  SWITCHYARD_CHECK(options.global_batch >= 1 && options.ranks >= 1 && options.micro_batch >= 1,
                   "batch sizes");
}

int64_t BatchOrder::steps_per_epoch() const {
  return DivideUp(options_.num_sequences, options_.global_batch);
}

int64_t BatchOrder::accumulation_steps() const {
  return DivideUp(options_.global_batch, options_.ranks * options_.micro_batch);
}

void BatchOrder::Shuffle(int64_t epoch) {
  if (epoch == epoch_) return;
  epoch_ = epoch;
  permutation_.resize(options_.num_sequences);
  std::iota(permutation_.begin(), permutation_.end(), 0);
  std::seed_seq seed{static_cast<uint32_t>(options_.seed),
                     static_cast<uint32_t>(options_.seed >> 32), static_cast<uint32_t>(epoch),
                     static_cast<uint32_t>(epoch >> 32)};
  std::mt19937_64 random(seed);
  for (size_t i = permutation_.size(); i > 1; --i) {
    std::swap(permutation_[i - 1], permutation_[Below(random, i)]);
  }
}

std::vector<int64_t> BatchOrder::GlobalBatch(int64_t step) {
  Shuffle(step / steps_per_epoch());
  const int64_t begin = step % steps_per_epoch() * options_.global_batch;
  std::vector<int64_t> batch(options_.global_batch, kEmptySequence);
  for (int64_t i = 0; i < options_.global_batch && begin + i < options_.num_sequences; ++i) {
    batch[i] = permutation_[begin + i];
  }
  return batch;
}

std::vector<int64_t> BatchOrder::MicroBatch(int64_t step, int64_t index, int64_t rank) {
  const std::vector<int64_t> batch = GlobalBatch(step);
  std::vector<int64_t> own(options_.micro_batch, kEmptySequence);
  const int64_t first = (index * options_.ranks + rank) * options_.micro_batch;
  for (int64_t i = 0; i < options_.micro_batch && first + i < options_.global_batch; ++i) {
    own[i] = batch[first + i];
  }
  return own;
}

}  // namespace switchyard::trainer
