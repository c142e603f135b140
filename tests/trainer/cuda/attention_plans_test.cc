// Attention over packed documents as the engine lays it out: every document has the results that it
// has alone, however many tokens a micro-batch has, and no more scratch memory is used than
// planned. Skips where there is no GPU.
#include "worker/trainer/cuda/attention_plans.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/model/cuda_limits.h"
#include "common/model/rank_memory.h"

namespace switchyard::trainer::cuda {
namespace {

constexpr ops::AttentionShape kQwen3 = {.num_heads = 32, .num_kv_heads = 4, .head_dim = 128};
constexpr int64_t kQuery = 32 * 128, kKey = 4 * 128;

at::TensorOptions Gpu(at::ScalarType type) {
  return at::TensorOptions().dtype(type).device(at::kCUDA);
}

// Of one attention, over documents of one length each.
struct Attended {
  at::Tensor out, grad_query, grad_key, grad_value;
  int64_t scratch_bytes = 0;
};

nv_bfloat16* Data(const at::Tensor& t) { return static_cast<nv_bfloat16*>(t.data_ptr()); }

// `qk`, `qkv` and `grad_out` are rows of one document, given `documents` times.
Attended Attend(const at::Tensor& qk, const at::Tensor& qkv, const at::Tensor& grad_out,
                int64_t documents, int64_t num_sequences) {
  const int64_t length = qk.size(0), tokens = documents * length;
  const at::Tensor all_qk = qk.repeat({documents, 1}), all_qkv = qkv.repeat({documents, 1}),
                   all_grad = grad_out.repeat({documents, 1});
  Batch batch;
  batch.num_sequences = num_sequences;
  batch.sequence_length = tokens / num_sequences;
  std::vector<int32_t> offsets;
  for (int64_t d = 0; d <= documents; ++d) offsets.push_back(static_cast<int32_t>(d * length));
  batch.document_offset = at::tensor(offsets, at::kInt);
  const at::Tensor device_offsets = batch.document_offset.to(at::kCUDA);
  AttentionPlans plans(/*deterministic=*/false);
  plans.Select(kQwen3, batch, device_offsets.const_data_ptr<int32_t>());

  const at::Tensor grad_qk = at::zeros({tokens, kQuery + kKey}, Gpu(at::kBFloat16)),
                   log_sum_exp = at::empty({tokens, 32}, Gpu(at::kFloat));
  Attended run;
  run.out = at::zeros({tokens, kQuery}, Gpu(at::kBFloat16));
  run.grad_query = grad_qk.narrow(1, 0, kQuery);
  run.grad_key = at::zeros({tokens, kKey}, Gpu(at::kBFloat16));
  run.grad_value = at::zeros({tokens, kKey}, Gpu(at::kBFloat16));
  run.scratch_bytes =
      std::max(plans.plan().forward_workspace_bytes(), plans.plan().backward_workspace_bytes());
  const at::Tensor scratch = at::empty({run.scratch_bytes + 1}, Gpu(at::kByte));
  kernels::AttentionBuffers buffers;
  buffers.query = Data(all_qk), buffers.key = Data(all_qk) + kQuery;
  buffers.value = Data(all_qkv) + kQuery + kKey;
  buffers.out = Data(run.out);
  buffers.log_sum_exp = log_sum_exp.mutable_data_ptr<float>();
  buffers.documents = plans.documents();
  buffers.grad_out = Data(all_grad);
  buffers.grad_query = Data(grad_qk), buffers.grad_key = Data(run.grad_key);
  buffers.grad_value = Data(run.grad_value);
  EXPECT_TRUE(plans.plan().Forward(buffers, scratch.data_ptr(), nullptr));
  EXPECT_TRUE(plans.plan().Backward(buffers, scratch.data_ptr(), nullptr));
  return run;
}

TEST(AttentionPlansTest, ManyPackedTokensHaveTheGradientsOfEachDocumentAlone) {
  if (c10::cuda::device_count() == 0) GTEST_SKIP() << "no GPU on this machine: built but not run";
  constexpr int64_t kLength = 4096, kDocuments = 16;
  const at::Tensor qk = at::randn({kLength, kQuery + kKey}, Gpu(at::kBFloat16)),
                   qkv = at::randn({kLength, kQuery + 2 * kKey}, Gpu(at::kBFloat16)),
                   grad = at::randn({kLength, kQuery}, Gpu(at::kBFloat16));
  const Attended alone = Attend(qk, qkv, grad, 1, 1);
  const Attended packed = Attend(qk, qkv, grad, kDocuments, 1);
  EXPECT_LE(packed.scratch_bytes, kAttentionScratch * kDocuments * kLength * kQuery);
  const auto compare = [&](const char* name, const at::Tensor& got, const at::Tensor& want) {
    for (int64_t d = 0; d < kDocuments; ++d) {
      const at::Tensor difference =
          got.narrow(0, d * kLength, kLength).to(at::kFloat).sub_(want.to(at::kFloat));
      EXPECT_LT(difference.norm().item<double>(), 2e-3 * want.to(at::kFloat).norm().item<double>())
          << name << " of document " << d;
    }
  };
  compare("out", packed.out, alone.out);
  compare("grad_query", packed.grad_query, alone.grad_query);
  compare("grad_key", packed.grad_key, alone.grad_key);
  compare("grad_value", packed.grad_value, alone.grad_value);
}

TEST(AttentionPlansTest, MoreTokensThanOffsetsReachAreRefused) {
  kernels::AttentionOptions options = AttentionLayout(kQwen3);
  options.num_tokens = 262'144, options.sequence_length = 4096, options.max_documents = 64;
  std::string error;
  EXPECT_EQ(kernels::Attention::Create(options, &error), nullptr);
  EXPECT_EQ(error,
            "num_tokens is 262144, too many for cuDNN's 32-bit offsets: packed documents of this "
            "shape take at most 262143");
}

// What plans and jobs are held to, and what the kernels refuse: the same. Needs no GPU.
TEST(AttentionPlansTest, PlansAllowWhatPackedAttentionTakesAndNoMore) {
  for (const auto& [heads, kv_heads, head_dim] : {std::tuple{32, 4, 128}, std::tuple{16, 16, 128},
                                                  std::tuple{8, 2, 64}, std::tuple{6, 3, 32}}) {
    ModelShape shape;
    shape.num_heads = heads, shape.num_kv_heads = kv_heads, shape.head_dim = head_dim;
    kernels::AttentionOptions options = AttentionLayout({heads, kv_heads, head_dim});
    options.sequence_length = 4096, options.max_documents = 64;
    std::string error;
    options.num_tokens = MaxCudaTokens(shape) + 1;
    EXPECT_EQ(kernels::Attention::Create(options, &error), nullptr);
    EXPECT_NE(error.find("32-bit offsets"), std::string::npos) << heads << ": " << error;
    options.num_tokens = MaxCudaTokens(shape);
    kernels::Attention::Create(options, &error);
    EXPECT_EQ(error.find("32-bit offsets"), std::string::npos) << heads << ": " << error;
  }
}

}  // namespace
}  // namespace switchyard::trainer::cuda
