// What ATen's products on a GPU lack: a limit on the multiprocessors, and a sum that does not begin
// with a copy. Knows nothing of models or streams.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

namespace switchyard::trainer::cuda {

class DenseGemms {
 public:
  // Products by cuBLAS, ATen's too, that this thread enqueues from here on are chosen for `limit`
  // multiprocessors; 0: all. Throws c10::Error.
  void LimitMultiprocessors(int limit);
  // out = c + a b^T, rounded once: a [M, K], b [N, K], c and out [M, N], contiguous bfloat16. at::
  // copies c to out first. Throws c10::Error when cuBLAS has no kernel.
  void AddProduct(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b,
                  const at::Tensor& out);

 private:
  struct Plan;
  struct DeletePlan {
    void operator()(Plan* plan) const;
  };
  using Key = std::tuple<int64_t, int64_t, int64_t, int>;  // M, N, K, limit

  std::map<Key, std::unique_ptr<Plan, DeletePlan>> plans_;
  int limit_ = 0;
};

}  // namespace switchyard::trainer::cuda
