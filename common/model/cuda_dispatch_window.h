// What lies where in a rank's region of the dispatch window on GPUs: one arithmetic for the plan's
// `windows` and for the dispatcher. Activations are bfloat16.
//
// The region holds room for the worst routing, so no token is ever dropped. It begins with a header
// (counters and flags of the exchanges), then come, per member s of the ep group, the parts that s
// writes: a table of its choices, the choices and weights of its rows, flags, gradients of weights;
// and then, for every member but this rank itself,
//   rows [T, D]    the tokens that s sends
//   back [T, D]    partial sums of the tokens that this rank sent to s
#pragma once

#include <cstdint>

#include "common/model/dispatch_window.h"

namespace switchyard {

struct CudaDispatchWindowLayout {
  static constexpr int64_t kHeader = 4096;
  static constexpr int64_t kTable = 4096;  // int32 counts of the choices
  // Slots, and on the way back columns, that one flag stands for.
  static constexpr int64_t kRowTile = 8;
  static constexpr int64_t kBackTile = 4, kBackColumns = 1024;

  // Byte offsets into a rank's region; every part starts on a multiple of 128.
  explicit CudaDispatchWindowLayout(const DispatchWindowShape& shape)
      : expert_parallel(shape.expert_parallel) {
    const int64_t choices = Pad(shape.max_tokens * shape.experts_per_token * 4);
    const auto tiles = [](int64_t size, int64_t tile) { return (size + tile - 1) / tile; };
    const int64_t row_flags = tiles(shape.max_tokens, kRowTile);
    const int64_t back_flags =
        tiles(shape.max_tokens, kBackTile) * tiles(shape.hidden_size, kBackColumns);
    ready = kTable - 128;
    choice = kTable;
    weight = choice + choices;
    back_weight = weight + choices;
    row_flag = back_weight + choices;
    back_flag = row_flag + Pad(row_flags * 4);
    member_bytes = back_flag + Pad(back_flags * 4);
    row_bytes = Pad(shape.max_tokens * shape.hidden_size * 2);
    bytes = expert_parallel > 1
                ? kHeader + expert_parallel * member_bytes + (expert_parallel - 1) * 2 * row_bytes
                : 0;
  }

  // Offset of `part` (choice, weight, ...; 0 for the table) that `member` writes.
  int64_t At(int64_t member, int64_t part) const { return kHeader + member * member_bytes + part; }
  // Offsets in the region of `owner` of what `member` writes; they are not the same.
  int64_t Rows(int64_t owner, int64_t member) const {
    const int64_t index = (member - owner - 1 + expert_parallel) % expert_parallel;
    return kHeader + expert_parallel * member_bytes + index * 2 * row_bytes;
  }
  int64_t Back(int64_t owner, int64_t member) const { return Rows(owner, member) + row_bytes; }

  int64_t ready, choice, weight, back_weight, row_flag, back_flag;
  int64_t member_bytes;  // of the parts of one member, without rows
  int64_t row_bytes;     // of the rows of one member
  int64_t expert_parallel;
  int64_t bytes;  // of the whole region; 0 without expert parallelism

 private:
  static int64_t Pad(int64_t size) { return (size + 127) / 128 * 128; }
};

}  // namespace switchyard
