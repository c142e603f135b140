// Cuts a pass over many rows into blocks that stay in cache while several operations go over them.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

namespace switchyard::trainer::ops {

// Bytes of one operand of a block: a few operands together fit a core's L2 cache.
inline constexpr int64_t kBlockBytes = int64_t{96} * 1024;

// Rows of a block: depends on the shape only, never on threads, so sums by block do not either.
inline int64_t RowsOfBlock(int64_t row_elements) {
  return std::max<int64_t>(8, kBlockBytes / (4 * std::max<int64_t>(1, row_elements)));
}

inline int64_t NumRowBlocks(int64_t rows, int64_t row_elements) {
  const int64_t block = RowsOfBlock(row_elements);
  return (rows + block - 1) / block;
}

// Calls fn(block, begin, end) for every block of rows: in parallel on CPU; on another device once,
// with all rows. fn must not touch rows of other blocks.
template <typename Fn>
void ForRowBlocks(c10::Device device, int64_t rows, int64_t row_elements, const Fn& fn) {
  if (rows == 0) return;
  if (!device.is_cpu()) {
    fn(int64_t{0}, int64_t{0}, rows);
    return;
  }
  const int64_t block = RowsOfBlock(row_elements);
  const int64_t blocks = NumRowBlocks(rows, row_elements);
  at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    const at::AutoDispatchBelowADInplaceOrView
        no_autograd;  // worker threads do not inherit the guard
    for (int64_t i = first; i < last; ++i) fn(i, i * block, std::min(rows, (i + 1) * block));
  });
}

}  // namespace switchyard::trainer::ops
