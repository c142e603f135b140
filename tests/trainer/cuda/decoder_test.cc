// The model on a GPU against the model on CPU: the same bfloat16 weights, the same batch, once in
// float32 on the CPU and once with every kernel. Skips where there is no GPU.
#include <ATen/Parallel.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/trainer/data/row_batch.h"
#include "worker/trainer/optim/sharded_optimizer.h"
#include "worker/trainer/train/device_backend.h"
#include "worker/trainer/train/rank_context.h"

namespace switchyard::trainer {
namespace {

#define SWITCHYARD_REQUIRE_GPU()                                 \
  if (c10::cuda::device_count() == 0) {                          \
    GTEST_SKIP() << "no GPU on this machine: built but not run"; \
  }

constexpr int64_t kVocab = 512;

ModelShape Shape(int64_t head_dim, bool tied) {
  return ParseModelConfig(
             R"({"model_type": "qwen3_moe", "hidden_size": 256, "num_hidden_layers": 3,
      "vocab_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 16,
      "num_experts_per_tok": 4, "moe_intermediate_size": 64, "initializer_range": 0.05,
      "norm_topk_prob": true, "tie_word_embeddings": )" +
             std::string(tied ? "true" : "false") + R"(, "head_dim": )" + std::to_string(head_dim) +
             "}")
      .value();
}

std::unique_ptr<RankContext> Rank(const ModelShape& shape, const std::string& device,
                                  int64_t sequences, int64_t length, int64_t accumulation,
                                  std::optional<ActivationMemory> activations = {}) {
  // A rank on a GPU binds the process to the CPUs near it: more threads than those would wait for
  // each other in the reference's small products.
  at::set_num_threads(1);
  RankOptions options;
  options.shape = shape;
  options.device = device;
  options.deterministic = true;
  options.precision = device == "cpu" ? Precision::kFloat32 : Precision::kBfloat16;
  options.micro_batch_sequences = sequences;
  options.sequence_length = length;
  options.gradient_accumulation = accumulation;
  options.activations = activations;
  return ConnectRank(options);
}

// Two rows of 64 tokens: one document; or several, with padding at the end.
Batch MakeRows(bool packed) {
  RowBatch rows;
  rows.input_ids = at::randint(0, kVocab, {2, 64}, at::kLong);
  rows.labels = rows.input_ids.clone();
  if (packed) {
    rows.position_ids = at::zeros({2, 64}, at::kLong);
    rows.valid = at::zeros({2, 64}, at::kBool);
    for (int row = 0; row < 2; ++row) {
      const int end = row == 0 ? 64 : 50;
      for (int t = 0; t < end; ++t) {
        rows.position_ids[row][t] = t % 20;
        rows.valid[row][t] = true;
      }
    }
    rows.labels.masked_fill_(rows.valid.logical_not(), -100);
  }
  return MakeBatch(rows, kVocab);
}

double RelativeError(const at::Tensor& got, const at::Tensor& expected) {
  const at::Tensor want = expected.to(at::kFloat);
  const double error = got.cpu().to(at::kFloat).sub(want).norm().item<double>();
  return error / std::max(1e-20, want.norm().item<double>());
}

struct Case {
  const char* name;
  int64_t head_dim;
  bool tied, packed;
  int64_t accumulation;
};

class CudaDecoderTest : public ::testing::TestWithParam<Case> {};

TEST_P(CudaDecoderTest, LossAndGradientsStayNearFloat32) {
  SWITCHYARD_REQUIRE_GPU();
  const Case& c = GetParam();
  at::manual_seed(7);
  const ModelShape shape = Shape(c.head_dim, c.tied);
  const auto cpu = Rank(shape, "cpu", 2, 64, c.accumulation);
  const auto gpu = Rank(shape, "cuda", 2, 64, c.accumulation);
  gpu->decoder->InitializeRandom(3);
  at::Tensor values = cpu->decoder->parameters().values();
  for (size_t i = 0; i < cpu->decoder->parameters().parameters().size(); ++i) {
    const int p = static_cast<int>(i);
    at::Tensor to = cpu->decoder->parameters().Value(p);
    to.copy_(gpu->decoder->parameters().Value(p).cpu());
  }
  const LossScale scale = {1.0 / 100, 0.01};
  cpu->decoder->ZeroGradients();
  gpu->decoder->ZeroGradients();
  for (int64_t i = 0; i < c.accumulation; ++i) {
    const Batch batch = MakeRows(c.packed);
    const EvalResult eval = gpu->decoder->Evaluate(batch);
    const MicroBatchResult want = cpu->decoder->ForwardBackward(batch, scale);
    const MicroBatchResult got = gpu->decoder->ForwardBackward(batch, scale);
    EXPECT_NEAR(got.cross_entropy_sum(), want.cross_entropy_sum(), 0.01 * want.cross_entropy_sum());
    EXPECT_NEAR(eval.cross_entropy_sum, got.cross_entropy_sum(), 1e-3 * want.cross_entropy_sum());
    EXPECT_NEAR(got.aux_loss(), want.aux_loss(), 0.02 * want.aux_loss());
    EXPECT_NEAR(got.router_entropy(), want.router_entropy(), 0.02 * want.router_entropy());
    EXPECT_EQ(got.tokens_per_expert.sum().item<int64_t>(),
              want.tokens_per_expert.sum().item<int64_t>());
  }
  // Tokens near a tie go to another expert in bfloat16: single experts differ by much, the median
  // does not.
  std::vector<double> errors;
  for (size_t i = 0; i < cpu->decoder->parameters().parameters().size(); ++i) {
    const int p = static_cast<int>(i);
    errors.push_back(RelativeError(gpu->decoder->Gradient(p), cpu->decoder->Gradient(p)));
    EXPECT_LT(errors.back(), 0.35) << cpu->decoder->parameters().parameters()[i].name;
  }
  std::nth_element(errors.begin(), errors.begin() + errors.size() / 2, errors.end());
  EXPECT_LT(errors[errors.size() / 2], 0.08);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaDecoderTest,
                         ::testing::Values(Case{"whole_sequences", 64, false, false, 1},
                                           Case{"packed", 64, false, true, 1},
                                           Case{"tied", 64, true, true, 1},
                                           Case{"heads_of_32", 32, false, true, 1},
                                           Case{"accumulated", 64, false, true, 2},
                                           Case{"tied_accumulated", 64, true, false, 2}),
                         [](const auto& test) { return test.param.name; });

TEST_P(CudaDecoderTest, RecomputationGivesTheSameBytesInArenasAsLargeAsPlanned) {
  SWITCHYARD_REQUIRE_GPU();
  const Case& c = GetParam();
  at::manual_seed(7);
  const Batch batch = MakeRows(c.packed);
  std::vector<at::Tensor> kept;
  for (const ActivationMemory activations : kActivationMemories) {
    SCOPED_TRACE(ActivationMemoryName(activations));
    const auto gpu = Rank(Shape(c.head_dim, c.tied), "cuda", 2, 64, c.accumulation, activations);
    Decoder& decoder = *gpu->decoder;
    decoder.InitializeRandom(3);
    decoder.ZeroGradients();
    decoder.ForwardBackward(batch, {1.0 / 100, 0.01});
    GpuBackend()->Synchronize();
    const DeviceMemory before = GpuBackend()->Memory();
    GpuBackend()->ForbidWaiting(true);
    decoder.ZeroGradients();
    decoder.ForwardBackward(batch, {1.0 / 100, 0.01});
    GpuBackend()->ForbidWaiting(false);
    GpuBackend()->Synchronize();
    EXPECT_EQ(GpuBackend()->Memory().allocations, before.allocations);
    EXPECT_LE(decoder.arena_use().high_water, decoder.arena_use().planned);
    std::vector<at::Tensor> gradients;
    for (size_t b = 0; b < decoder.parameters().blocks().size(); ++b)
      gradients.push_back(decoder.BlockGradient(static_cast<int>(b)).cpu());
    if (kept.empty()) kept = gradients;
    for (size_t b = 0; b < kept.size(); ++b)
      EXPECT_TRUE(gradients[b].equal(kept[b])) << "block " << b;
  }
}

class CudaStepTest : public ::testing::TestWithParam<OptimizerProfile> {};

TEST_P(CudaStepTest, TwentyStepsWaitForNothingAllocateNothingAndRepeatToTheBit) {
  SWITCHYARD_REQUIRE_GPU();
  const ModelShape shape = Shape(64, false);
  at::manual_seed(5);
  const Batch batch = MakeRows(true);
  std::vector<at::Tensor> results;
  for (int run = 0; run < 2; ++run) {
    const auto gpu = Rank(shape, "cuda", 2, 64, 1);
    gpu->decoder->InitializeRandom(3);
    ShardedOptimizer optimizer(gpu->decoder->parameters(), gpu->communicators(),
                               {{0.9, 0.999, 1e-8, 0.1}, GetParam(), 11});
    const BlockGradients gradients = [&](int block) { return gpu->decoder->BlockGradient(block); };
    double first_loss = 0;
    at::Tensor sums;
    DeviceMemory before;
    for (int step = 0; step < 20; ++step) {
      if (step == 3) {
        first_loss = sums[0].item<double>();
        GpuBackend()->Synchronize();
        before = GpuBackend()->Memory();
        GpuBackend()->ForbidWaiting(true);
      }
      sums = gpu->decoder
                 ->ForwardBackward(batch, {1.0 / 90, 0.001}, nullptr,
                                   optimizer.ReduceWhenFinal(gradients))
                 .sums;
      const at::Tensor squares = optimizer.ReduceGradients(gradients);
      optimizer.Update(gradients, 1e-3, 1.0, squares, sums);
    }
    GpuBackend()->ForbidWaiting(false);
    GpuBackend()->Synchronize();
    const DeviceMemory after = GpuBackend()->Memory();
    EXPECT_EQ(after.allocations, before.allocations);
    EXPECT_EQ(optimizer.CurrentState().adam_step, 20);
    EXPECT_LT(sums[0].item<double>(), 0.8 * first_loss);
    results.push_back(gpu->decoder->parameters().values().cpu());
  }
  EXPECT_TRUE(results[0].equal(results[1]));
}

TEST_P(CudaStepTest, AStepThatIsNotFiniteChangesNothingDoesNotCountAndNamesWhatWasNot) {
  SWITCHYARD_REQUIRE_GPU();
  const auto gpu = Rank(Shape(64, false), "cuda", 2, 64, 1);
  gpu->decoder->InitializeRandom(3);
  ShardedOptimizer optimizer(gpu->decoder->parameters(), gpu->communicators(), {{}, GetParam()});
  const BlockGradients gradients = [&](int block) { return gpu->decoder->BlockGradient(block); };
  const Batch batch = MakeRows(false);
  const at::Tensor before = gpu->decoder->parameters().values().clone();
  at::Tensor sums = gpu->decoder->ForwardBackward(batch, {1, 0}).sums;
  gpu->decoder->BlockGradient(2)[5].fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor squares = optimizer.ReduceGradients(gradients);
  const int64_t skipped = optimizer.Update(gradients, 1e-3, 1.0, squares, sums);
  EXPECT_TRUE(gpu->decoder->parameters().values().equal(before));
  EXPECT_EQ(optimizer.CurrentState().adam_step, 0);

  // The names are those of the skipped step, though the next has been through.
  sums = gpu->decoder->ForwardBackward(batch, {1, 0}).sums;
  const int64_t done =
      optimizer.Update(gradients, 1e-3, 1.0, optimizer.ReduceGradients(gradients), sums);
  std::vector<std::string> expected;
  for (const Parameter& p : gpu->decoder->parameters().parameters()) {
    if (p.block == 2 && p.offset <= 5 && 5 < p.offset + p.numel) expected.push_back(p.name);
  }
  ASSERT_EQ(expected.size(), 1u);
  EXPECT_EQ(optimizer.NonFiniteParameters(skipped, gradients), expected);
  EXPECT_TRUE(optimizer.NonFiniteParameters(done, gradients).empty());
  EXPECT_EQ(optimizer.CurrentState().adam_step, 1);
}

INSTANTIATE_TEST_SUITE_P(Profiles, CudaStepTest,
                         ::testing::Values(OptimizerProfile::kExact, OptimizerProfile::kCompact),
                         [](const auto& test) {
                           return test.param == OptimizerProfile::kExact ? "exact" : "compact";
                         });

}  // namespace
}  // namespace switchyard::trainer
