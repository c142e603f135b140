#include "common/model/packed_attention.h"

#include <algorithm>

#include "common/model/rank_memory.h"

namespace switchyard {
namespace {

constexpr int64_t kFewestDocuments = 8;
constexpr int64_t kShortestLength = 128;

int64_t Doubled(int64_t start, int64_t wanted) {
  while (start < wanted) start *= 2;
  return start;
}

}  // namespace

DocumentClass ClassOfDocuments(int64_t documents, int64_t longest, int64_t sequence_length) {
  return {Doubled(kFewestDocuments, documents),
          std::min(sequence_length, Doubled(kShortestLength, longest))};
}

DocumentClass ClassOfDocuments(std::span<const int32_t> offsets, int64_t sequence_length) {
  int64_t longest = 0;
  for (size_t i = 1; i < offsets.size(); ++i) {
    longest = std::max<int64_t>(longest, offsets[i] - offsets[i - 1]);
  }
  return ClassOfDocuments(static_cast<int64_t>(offsets.size()) - 1, longest, sequence_length);
}

DocumentClass ScratchDocuments(std::span<const int32_t> offsets, int64_t sequences,
                               int64_t sequence_length) {
  const bool whole = static_cast<int64_t>(offsets.size()) == sequences + 1;
  return whole ? DocumentClass{sequences, sequence_length}
               : ClassOfDocuments(offsets, sequence_length);
}

int64_t DeterministicScratchBytes(const DocumentClass& documents, int64_t num_heads) {
  int64_t bytes = 2;
  for (int64_t factor : {documents.documents, num_heads, documents.length, documents.length}) {
    if (__builtin_mul_overflow(bytes, factor, &bytes)) return kTooManyBytes;
  }
  return std::min(bytes, kTooManyBytes);
}

}  // namespace switchyard
