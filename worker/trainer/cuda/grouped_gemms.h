// The grouped products of a run: one object per shape, made when first used and kept with its
// workspace.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <tuple>

#include "kernels/grouped_gemm.h"

namespace switchyard::trainer::cuda {

class GroupedGemms {
 public:
  // out = the product of a and b (kernels/grouped_gemm.h) over the rows that offset_L1 (int32,
  // device) gives; rows of the buffers beyond are not touched. Throws c10::Error that names the
  // dimension when the kernels cannot do the shape.
  void Run(kernels::GroupedProduct product, kernels::GroupedOutput output,
           const at::Tensor& offset_L1, const at::Tensor& a, const at::Tensor& b,
           const at::Tensor& out, int64_t out_features, int64_t in_features,
           const kernels::SwigluOperands& swiglu = {});
  // Multiprocessors that Run may take from here on; 0: all.
  void LimitMultiprocessors(int limit) { limit_ = limit; }

 private:
  struct Entry {
    kernels::GroupedGemm gemm;
    at::Tensor workspace;  // uint8
  };
  using Key =
      std::tuple<kernels::GroupedProduct, kernels::GroupedOutput, int64_t, int64_t, int64_t>;
  std::map<Key, Entry> entries_;
  int limit_ = 0;
};

}  // namespace switchyard::trainer::cuda
