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
      if (offsets.size() == sequences.size() + 1) continue;  // each sequence is one document
      const DocumentClass documents = ClassOfDocuments(offsets, data.sequence_length());
      const int64_t bytes = DeterministicScratchBytes(documents, num_heads);
      if (bytes > largest.bytes) largest = {bytes, documents, step};
    }
  }
  return largest;
}

}  // namespace switchyard::trainer
