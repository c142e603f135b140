// The grouped products of a run: one object per shape, made when first used and kept with its
// workspace.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <tuple>
#include <vector>

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
  // What `calls` asks of Run is only made ready, by one launch; it must be asked for again, as it
  // is, before the offsets change. All of one number of rows and one list of offsets.
  void Prepare(const std::function<void()>& calls);

 private:
  struct Entry {
    kernels::GroupedGemm gemm;
    at::Tensor workspace;  // uint8
    // What it was made ready for, once; call.gemm is null otherwise.
    kernels::GroupedGemmCall call{};
    const int32_t* offset = nullptr;
    int64_t rows = 0;
  };
  using Key =
      std::tuple<kernels::GroupedProduct, kernels::GroupedOutput, int64_t, int64_t, int64_t>;

  Entry& Find(const kernels::GroupedGemmShape& shape);
  static void Launch(const std::vector<Entry*>& entries);

  std::map<Key, Entry> entries_;
  bool preparing_ = false;
  std::vector<Entry*> prepared_;  // by the Prepare that runs
};

}  // namespace switchyard::trainer::cuda
