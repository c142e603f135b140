// The embedding's gradient from rows that ranks on several GPUs gather.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "common/model/model_shape.h"
#include "tests/trainer/cuda/gpu_ranks.h"
#include "worker/trainer/cuda/cuda_ops.h"
#include "worker/trainer/optim/sharded_optimizer.h"

namespace switchyard::trainer {
namespace {

constexpr int64_t kTokens = 512, kVocab = 1001, kWidth = 264;  // shards that end within a row
constexpr int64_t kSkipped = 5;

ModelShape Shape() {
  return ParseModelConfig(
             R"({"model_type": "qwen3_moe", "hidden_size": 264, "num_hidden_layers": 1,
      "vocab_size": 1001, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 8,
      "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 64})")
      .value();
}

// Every fourth token has the same id; the others' are spread.
at::Tensor Ids(int rank) {
  const at::Tensor t = at::arange(kTokens, at::kLong);
  return at::where(t.remainder(4) == 0, at::full({1}, 17, at::kLong),
                   (t * (7 + 2 * rank) + rank).remainder(kVocab));
}

// Small integers: float32 sums are exact, so any order gives them.
at::Tensor Rows(int rank) {
  const at::Tensor i = at::arange(kTokens * kWidth, at::kLong);
  return ((i * (rank + 3)).remainder(11) - 5).to(at::kBFloat16).view({kTokens, kWidth});
}

TEST(ReduceEmbeddingTest, GatheredRowsGiveEachRankItsShardOfTheSum) {
  SWITCHYARD_REQUIRE_GPUS(2);
  const int ranks = std::min(CountGpus(), 8) / 2 * 2;
  SharedId id;
  RunRanks(ranks, [&](int rank) {
    CudaMeshGroups groups = JoinOnGpu(id, rank, ranks, 2, 8, 0);
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(rank));
    const auto bf16 = at::TensorOptions(at::kBFloat16).device(device);
    Arena workspace("workspace", int64_t{64} << 20, device);
    const std::unique_ptr<ops::DeviceOps> device_ops = cuda::MakeCudaOps({});
    ops::InstallDeviceOps(device_ops.get());
    device_ops->Prepare(Shape(), kTokens, &workspace);
    ParameterRegistry registry(Shape(), *Mesh::Create(ranks, 2, 8), rank);
    registry.BindValues(at::zeros({registry.total_numel()}, bf16));
    ShardedOptimizer optimizer(registry, groups.communicators, {});
    const at::Tensor flat = at::zeros({registry.total_numel()}, bf16);
    const BlockGradients gradients = [&](int block) {
      return flat.narrow(0, registry.blocks()[block].offset, registry.blocks()[block].numel);
    };
    const Parameter& table = registry.parameters()[registry.Find("model.embed_tokens.weight")];
    const ParameterBlock& block = registry.blocks()[table.block];

    at::Tensor sum = at::zeros({kVocab, kWidth});
    for (int r = 0; r < ranks; ++r) sum.index_add_(0, Ids(r), Rows(r).to(at::kFloat));
    sum.select(0, kSkipped).zero_();
    at::Tensor expected = at::zeros({block.numel});
    expected.narrow(0, 0, table.numel).copy_(sum.reshape({-1}));
    expected = expected.narrow(0, rank * block.shard_numel(), block.shard_numel());
    for (int round = 0; round < 3; ++round) {
      gradients(table.block).narrow(0, 0, table.numel).fill_(1000);  // of a step before
      optimizer.ReduceWhenFinal(gradients).of_embedding(
          {Rows(rank).to(device), Ids(rank).to(device), kSkipped}, workspace);
      const double squares = optimizer.ReduceGradients(gradients).item<double>();
      const at::Tensor own =
          gradients(table.block).narrow(0, rank * block.shard_numel(), block.shard_numel()).cpu();
      EXPECT_TRUE(own.equal(expected.to(at::kBFloat16))) << "round " << round;
      const double norm = own.to(at::kDouble).square().sum().item<double>();
      EXPECT_NEAR(squares, norm, 1e-5 * norm);
    }
    groups.Check();
    ops::InstallDeviceOps(nullptr);
  });
}

}  // namespace
}  // namespace switchyard::trainer
