// Memory of the deterministic attention backward over packed documents on a GPU.
//
// cuDNN makes that gradient repeatable by keeping a part of it for every document, as long as the
// longest may be: documents x heads x length^2 x 2 bytes. Plans are made for classes of batches, so
// that a run needs few of them. Pure.
#pragma once

#include <cstdint>
#include <span>

namespace switchyard {

// Batches that one plan serves: at most so many documents, none longer than `length` tokens.
struct DocumentClass {
  int64_t documents = 0;
  int64_t length = 0;
};

// The smallest class for a micro-batch of `documents` documents (runs of padding are documents
// too), the longest of `longest` tokens, cut from sequences of `sequence_length`. Both sizes are
// powers of two, but that no length is above `sequence_length`.
DocumentClass ClassOfDocuments(int64_t documents, int64_t longest, int64_t sequence_length);
// The same of documents that begin at `offsets`; the last entry is the end of the micro-batch.
DocumentClass ClassOfDocuments(std::span<const int32_t> offsets, int64_t sequence_length);
// What scratch is wanted for by a micro-batch of `sequences`: the class of its documents; whole
// sequences, a document each, have a plan of their own, of their exact number.
DocumentClass ScratchDocuments(std::span<const int32_t> offsets, int64_t sequences,
                               int64_t sequence_length);
// Scratch of the class in bytes; kTooManyBytes instead of an overflow.
int64_t DeterministicScratchBytes(const DocumentClass& documents, int64_t num_heads);

}  // namespace switchyard
