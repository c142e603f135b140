#include "worker/trainer/train/evaluation.h"

#include <ATen/ops/zeros.h>

#include <limits>
#include <vector>

#include "worker/trainer/data/batch_builder.h"
#include "worker/trainer/data/batch_order.h"

namespace switchyard::trainer {

std::optional<EvaluationResult> EvaluateAll(Decoder& decoder, Communicator& world,
                                            const TokenShards& data, int64_t micro_batch,
                                            const std::function<bool(double)>& go_on) {
  at::Tensor sums = at::zeros({2}, at::kDouble);
  double* values = sums.mutable_data_ptr<double>();
  const int64_t together = micro_batch * world.size();
  for (int64_t begin = 0; begin < data.num_sequences(); begin += together) {
    const double done = static_cast<double>(begin) / static_cast<double>(data.num_sequences());
    if (begin > 0 && !go_on(done)) return std::nullopt;
    std::vector<int64_t> sequences(micro_batch, kEmptySequence);
    for (int64_t i = 0; i < micro_batch; ++i) {
      const int64_t sequence = begin + world.rank() * micro_batch + i;
      if (sequence < data.num_sequences()) sequences[i] = sequence;
    }
    const EvalResult part = decoder.Evaluate(BuildBatch(data, sequences));
    values[0] += part.cross_entropy_sum;
    values[1] += static_cast<double>(part.targets);
  }
  sums = sums.to(world.device());
  world.AllReduce(sums);
  sums = sums.cpu();
  values = sums.mutable_data_ptr<double>();
  EvaluationResult result;
  result.targets = static_cast<int64_t>(values[1]);
  result.loss = values[1] > 0 ? values[0] / values[1] : std::numeric_limits<double>::quiet_NaN();
  return result;
}

}  // namespace switchyard::trainer
