// What lies where in a rank's region of the dispatch window: one arithmetic for the plan's
// `windows` and for the dispatcher.
//
// The region holds room for the worst routing, so no token is ever dropped. Per member s of the ep
// group:
//   count        int32 [16]       rows that s sends to this rank (one used; a cache line)
//   expert       int32 [T, K]     per row and choice the local expert, or -1 when it is not on this
//   rank weight       float [T, K]     router weight of that choice back_weight  float [T, K]
//   gradients of the weights that this rank sent to s back         [T, D]           partial sums
//   for the tokens that this rank sent to s
// and then, for every other member s,
//   row          [T, D]           the tokens that s sends, in slot order
#pragma once

#include <cstdint>

namespace switchyard {

struct DispatchWindowShape {
  int64_t expert_parallel = 1;    // ep
  int64_t max_tokens = 0;         // T: tokens of a micro-batch on one rank
  int64_t hidden_size = 0;        // D
  int64_t experts_per_token = 0;  // K
  int64_t element_bytes = 4;      // of activations
};

// Byte offsets into a rank's region. Every part starts on a multiple of 64.
struct DispatchWindowLayout {
  explicit DispatchWindowLayout(const DispatchWindowShape& shape) {
    const int64_t choices = Pad(shape.max_tokens * shape.experts_per_token * 4);
    const int64_t rows = Pad(shape.max_tokens * shape.hidden_size * shape.element_bytes);
    count = 0;
    expert = count + 64;
    weight = expert + choices;
    back_weight = weight + choices;
    back = back_weight + choices;
    member_bytes = back + rows;
    row_bytes = rows;
    expert_parallel = shape.expert_parallel;
    bytes = expert_parallel > 1 ? expert_parallel * member_bytes + (expert_parallel - 1) * row_bytes
                                : 0;
  }

  // Offset of `part` (count, expert, ...) of member `member`.
  int64_t At(int64_t member, int64_t part) const { return member * member_bytes + part; }
  // Offset of the rows that `member` sends to `owner`; they are not the same.
  int64_t Rows(int64_t owner, int64_t member) const {
    const int64_t index = (member - owner - 1 + expert_parallel) % expert_parallel;
    return expert_parallel * member_bytes + index * row_bytes;
  }

  int64_t count, expert, weight, back_weight, back;
  int64_t member_bytes;  // of the parts of one member, without rows
  int64_t row_bytes;     // of the rows of one member
  int64_t expert_parallel;
  int64_t bytes;  // of the whole region; 0 without expert parallelism

 private:
  static int64_t Pad(int64_t size) { return (size + 63) / 64 * 64; }
};

}  // namespace switchyard
