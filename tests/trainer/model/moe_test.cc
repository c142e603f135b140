// The mixture of experts beyond what the golden cases reach: the local dispatcher, long row lists,
// bfloat16.
#include <ATen/Context.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>

#include "tests/trainer/model/golden.h"
#include "worker/trainer/comm/single_communicator.h"
#include "worker/trainer/model/gradient_store.h"
#include "worker/trainer/moe/expert_bank.h"
#include "worker/trainer/moe/load_balance.h"

namespace switchyard::trainer {
namespace {

ModelShape SmallShape() {
  return ParseModelConfig(R"({"model_type": "qwen3_moe", "hidden_size": 32, "num_hidden_layers": 2,
      "vocab_size": 97, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4,
      "num_experts_per_tok": 2, "moe_intermediate_size": 16, "initializer_range": 0.2, "norm_topk_prob": true})")
      .value();
}

Batch RandomBatch(int64_t sequences, int64_t length) {
  const at::Tensor ids = at::randint(0, 97, {sequences, length}, at::kLong);
  return MakeBatch({ids, ids, {}, {}}, 97);
}

TEST(LocalDispatcherTest, RowsAreSortedByExpertThenTokenAndCombineSumsThem) {
  const auto dispatcher = MakeLocalDispatcher(3, 2);
  const at::Tensor x = at::arange(4, at::kFloat).unsqueeze(1).expand({4, 5}).contiguous();
  const at::Tensor expert = at::tensor({2, 0, 0, 2, -1, -1, 2, 1}, at::kLong).view({4, 2});
  const at::Tensor weight = at::randn({4, 2});
  at::Tensor rows = at::zeros({dispatcher->MaxRows(4), 5});
  Arena saved("saved", 1 << 12, at::kCPU);
  const Routing routing = dispatcher->Dispatch(x, expert, weight, saved, rows);
  EXPECT_EQ(routing.max_rows, 6);
  EXPECT_TRUE(routing.expert_offset_L1.equal(at::tensor({0, 2, 3, 6}, at::kInt)));
  EXPECT_TRUE(rows.select(1, 0).slice(0, 0, 6).equal(at::tensor({0.f, 1.f, 3.f, 0.f, 1.f, 3.f})));
  EXPECT_EQ(routing.weight_R[2].item<float>(), weight[3][1].item<float>());
  at::Tensor y = at::full({4, 5}, NAN);
  dispatcher->Combine(rows, routing, x, y);
  EXPECT_TRUE(y.select(1, 0).equal(at::tensor({0.f, 3.f, 2.f, 9.f})));  // and twice x; not padding
  at::Tensor grad_weight = at::full({4, 2}, NAN);
  dispatcher->CombineGradient(rows, routing.weight_R, routing, y, grad_weight);
  const at::Tensor routed = expert.ge(0);
  EXPECT_TRUE(grad_weight.equal(weight.mul(routed)));
}

TEST(ExpertBankTest, ListsLongerThanTheCapacityAndRecomputationGiveTheSameResults) {
  const ModelShape shape = SmallShape();
  const Mesh mesh = Mesh::Create(1, 1, 4).value();
  ParameterRegistry registry(shape, mesh, 0);
  registry.BindValues(at::randn({registry.total_numel()}));
  const Batch batch = RandomBatch(1, 30);
  LoadBalance balance(2, 4, at::kCPU);
  const at::Tensor rows = at::randn({60, 32}), grad = at::randn({60, 32});
  Routing routing;
  routing.max_rows = 60;
  routing.expert_offset_L1 = at::tensor({0, 31, 31, 40, 60}, at::kInt);
  routing.weight_R = at::randn({60});

  std::vector<at::Tensor> results[8];
  for (int run = 0; run < 8; ++run) {
    std::vector<Arena> slots;
    for (int i = 0; i < 3; ++i) slots.emplace_back("slot", 1 << 20, at::kCPU);
    GradientStore gradients(registry, slots, at::kFloat, at::kCPU, /*accumulate=*/false, {});
    Arena workspace("workspace", 1 << 20, at::kCPU);
    const ActivationMemory activations =
        run < 4 ? ActivationMemory::kSaveAll : ActivationMemory::kRecomputeGateUp;
    StepContext context{batch,
                        workspace,
                        nullptr,
                        balance,
                        {},
                        {},
                        at::kFloat,
                        run % 2 == 0 ? 60 : 13,
                        SavedUnder(activations)};
    context.rows_on_device = run % 4 >= 2;  // the way of a GPU, with the CPU's operations
    ExpertBank bank(shape, registry, gradients, 0);
    const at::Tensor y = rows.clone(), dx = grad.clone(), dw = at::zeros({60});
    bank.Forward(context, slots[0], routing, y, y);
    bank.Backward(context, routing, rows, dx, dw);
    const int gate_up = registry.Find("model.layers.0.mlp.experts.gate_up_proj");
    results[run] = {y, dx, dw, gradients.Destination(gate_up).value.clone(),
                    gradients.Destination(gate_up + 1).value.clone()};
  }
  for (int run = 1; run < 8; ++run) {
    for (size_t i = 0; i < results[0].size(); ++i)
      EXPECT_LT(RelativeError(results[run][i], results[0][i]), 1e-6) << run << ' ' << i;
  }
  for (int run = 0; run < 2; ++run) {
    for (size_t i = 0; i < results[run].size(); ++i)
      EXPECT_TRUE(results[run + 4][i].equal(results[run][i])) << run << ' ' << i;
  }
}

TEST(LoadBalanceTest, EvenRoutingHasTheLossTopK) {
  LoadBalance balance(1, 4, at::kCPU);
  const ops::RouterStatistics statistics = balance.Statistics(0);
  statistics.count_E.fill_(4);
  statistics.probability_E.fill_(2);
  statistics.entropy.fill_(8 * std::log(4));
  balance.Reduce(*MakeSingleCommunicator(), /*valid_tokens=*/8, 0);
  EXPECT_DOUBLE_EQ(balance.loss().item<double>(), 2);
  EXPECT_NEAR(balance.router_entropy(8).item<double>(), std::log(4), 1e-6);
  EXPECT_FALSE(balance.grad_probability_E().defined());
}

TEST(DecoderTest, ABatchOfPaddingAloneHasNoLossAndNoGradient) {
  SingleRank rank(SmallShape(), Precision::kFloat32, 32);
  rank.decoder->InitializeRandom(1);
  const at::Tensor ids = at::zeros({2, 16}, at::kLong);
  const Batch empty =
      MakeBatch({ids, at::full({2, 16}, -100, at::kLong), {}, at::zeros({2, 16}, at::kBool)}, 97);
  const MicroBatchResult result = rank.decoder->ForwardBackward(empty, {1, 0.01});
  EXPECT_EQ(result.tokens, 0);
  EXPECT_EQ(result.cross_entropy_sum(), 0);
  EXPECT_EQ(result.aux_loss(), 0);
  for (size_t b = 0; b < rank.decoder->parameters().blocks().size(); ++b) {
    EXPECT_TRUE(rank.decoder->BlockGradient(static_cast<int>(b)).eq(0).all().item<bool>()) << b;
  }
}

TEST(DecoderTest, TokensPerExpertCountEveryChoice) {
  SingleRank rank(SmallShape(), Precision::kFloat32, 32);
  rank.decoder->InitializeRandom(1);
  const MicroBatchResult result = rank.decoder->ForwardBackward(RandomBatch(2, 16), {1, 0});
  EXPECT_EQ(result.tokens_per_expert.sizes(), at::IntArrayRef({2, 4}));
  EXPECT_TRUE(result.tokens_per_expert.sum(1).eq(2 * 32).all().item<bool>());
}

TEST(DecoderTest, Bfloat16StaysNearFloat32) {
  at::manual_seed(3);
  const ModelShape shape = SmallShape();
  const Batch batch = RandomBatch(2, 16);
  SingleRank exact(shape, Precision::kFloat32, 32), half(shape, Precision::kBfloat16, 32);
  SingleRank sums(shape, Precision::kBfloat16, 32, /*accumulation=*/2);
  half.decoder->InitializeRandom(3);
  sums.decoder->InitializeRandom(3);
  exact.decoder->InitializeRandom(3);
  // The same values, so that only arithmetic differs.
  at::Tensor values = exact.decoder->parameters().values();
  values.copy_(half.decoder->parameters().values());
  const double loss = exact.decoder->ForwardBackward(batch, {1, 0}).cross_entropy_sum();
  EXPECT_NEAR(half.decoder->ForwardBackward(batch, {1, 0}).cross_entropy_sum(), loss, 0.01 * loss);
  sums.decoder->ForwardBackward(batch, {1, 0});
  EXPECT_EQ(half.decoder->gradient_dtype(), at::kBFloat16);
  EXPECT_EQ(sums.decoder->gradient_dtype(), at::kFloat);
  const int head = exact.decoder->parameters().Find("lm_head.weight");
  EXPECT_LT(RelativeError(half.decoder->Gradient(head), exact.decoder->Gradient(head)), 0.12);
  for (size_t i = 0; i < half.decoder->parameters().parameters().size(); ++i) {
    const int p = static_cast<int>(i);
    EXPECT_LT(RelativeError(sums.decoder->Gradient(p), half.decoder->Gradient(p)), 0.005) << i;
  }
}

// Ranges of traces and profilers as they begin and end.
std::string& Ranges() {
  static std::string ranges;
  return ranges;
}

TEST(DecoderTest, ForwardAndBackwardAreRangesOneAfterTheOther) {
  SingleRank rank(SmallShape(), Precision::kFloat32, 32);
  rank.decoder->InitializeRandom(1);
  Ranges().clear();
  const at::CallbackHandle callback = at::addGlobalCallback(
      at::RecordFunctionCallback(
          [](const at::RecordFunction& range) {
            Ranges() += std::string("(") + range.name();
            return std::unique_ptr<at::ObserverContext>();
          },
          [](const at::RecordFunction&, at::ObserverContext*) { Ranges() += ")"; })
          .scopes({at::RecordScope::USER_SCOPE}));
  rank.decoder->ForwardBackward(RandomBatch(2, 16), {1, 0});
  at::removeCallback(callback);
  const std::string forward = "(layer forward(attention)(dispatch)(experts)(combine))";
  const std::string backward =
      "(layer backward(dispatch)(experts backward)(combine)(attention backward))";
  EXPECT_EQ(Ranges(),
            "(forward" + forward + forward + ")(backward(head)" + backward + backward + ")");
}

TEST(DecoderTest, ABatchThatDoesNotFitThePlanIsRefused) {
  SingleRank rank(SmallShape(), Precision::kFloat32, 16);
  EXPECT_THROW(rank.decoder->ForwardBackward(RandomBatch(2, 16), {1, 0}), c10::Error);
}

}  // namespace
}  // namespace switchyard::trainer
