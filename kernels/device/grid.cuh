// What grids of kernels that walk over their work are made for.
#pragma once

namespace switchyard::kernels {

// Of an H100 or H200 (SXM). With another number results are the same, but the grids do not fit.
inline constexpr int kMultiprocessors = 132;

}  // namespace switchyard::kernels
