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
      const std::vector<int32_t> offsets = DocumentOffsets(data, sequences);
      // Whole sequences have a plan of their own, of their exact number.
      const auto count = static_cast<int64_t>(sequences.size());
      const bool whole = static_cast<int64_t>(offsets.size()) == count + 1;
      const DocumentClass documents = whole ? DocumentClass{count, data.sequence_length()}
                                            : ClassOfDocuments(offsets, data.sequence_length());
      const int64_t bytes = DeterministicScratchBytes(documents, num_heads);
      if (bytes > largest.bytes) largest = {bytes, documents, step};
    }
  }
  return largest;
}

}  // namespace switchyard::trainer
