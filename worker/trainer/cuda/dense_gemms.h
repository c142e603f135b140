// A dense product that ATen lacks. Knows nothing of models or streams.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

namespace switchyard::trainer::cuda {

class DenseGemms {
 public:
  // out = c + a b^T, rounded once: a [M, K], b [N, K], c and out [M, N], contiguous bfloat16. at::
  // copies c to out first. Throws c10::Error when cuBLAS has no kernel.
  void AddProduct(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b,
                  const at::Tensor& out);

 private:
  struct Plan;
  struct DeletePlan {
    void operator()(Plan* plan) const;
  };
  using Key = std::tuple<int64_t, int64_t, int64_t>;  // M, N, K

  std::map<Key, std::unique_ptr<Plan, DeletePlan>> plans_;
};

}  // namespace switchyard::trainer::cuda
