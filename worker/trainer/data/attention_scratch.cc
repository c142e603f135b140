#include "worker/trainer/data/attention_scratch.h"

#include <vector>

#include "worker/trainer/data/batch_builder.h"

namespace switchyard::trainer {

AttentionScratch LargestAttentionScratch(const TokenShards& data, BatchOrder& order, int64_t steps,
                                         int64_t rank, int64_t num_heads) {
  AttentionScratch largest;
  for (int64_t step = 1; step <= steps; ++step) {
    for (int64_t index = 0; index < order.accumulation_steps(); ++index) {
      const std::vector<int64_t> sequences = order.MicroBatch(step - 1, index, rank);
      const DocumentClass documents =
          ScratchDocuments(DocumentOffsets(data, sequences), static_cast<int64_t>(sequences.size()),
                           data.sequence_length());
      const int64_t bytes = DeterministicScratchBytes(documents, num_heads);
      if (bytes > largest.bytes) largest = {bytes, documents, step};
    }
  }
  return largest;
}

}  // namespace switchyard::trainer
