// Causal attention in plain loops and double precision, for tests of kernels/attention.h.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace switchyard::kernels::reference {

// Buffers on the host with the strides of `options`; document_offset from 0 to T covers what is
// computed. log_sum_exp is not read or written.
void AttentionForward(const AttentionOptions& options, const std::vector<int32_t>& document_offset,
                      const AttentionBuffers& buffers);
void AttentionBackward(const AttentionOptions& options, const std::vector<int32_t>& document_offset,
                       const AttentionBuffers& buffers);

}  // namespace switchyard::kernels::reference
