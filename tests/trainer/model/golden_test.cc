// The decoder against Transformers' eager model in float32.
#include "tests/trainer/model/golden.h"

#include <gtest/gtest.h>

#include "worker/trainer/checkpoint/model_io.h"

namespace switchyard::trainer {
namespace {

constexpr double kOutputTolerance = 1e-5;
constexpr double kGradientTolerance = 1e-4;

class GoldenTest : public testing::TestWithParam<std::string> {
 protected:
  GoldenTest() : golden_(LoadGolden(GetParam())), batch_(golden_.FullBatch()) {}

  // A decoder with the case's weights.
  SingleRank Load(int64_t accumulation = 1, std::optional<ActivationMemory> activations = {},
                  Precision precision = Precision::kFloat32) {
    SingleRank rank(golden_.shape, precision, batch_.input_id_T.numel(), accumulation, activations);
    EXPECT_TRUE(LoadModel(golden_.directory, rank.decoder->parameters(), nullptr).ok());
    return rank;
  }
  // Copies of all gradients.
  static std::vector<at::Tensor> Gradients(Decoder& decoder) {
    std::vector<at::Tensor> blocks;
    for (size_t b = 0; b < decoder.parameters().blocks().size(); ++b)
      blocks.push_back(decoder.BlockGradient(static_cast<int>(b)).clone());
    return blocks;
  }
  LossScale Scale(double share = 1) const {
    return {1.0 / static_cast<double>(batch_.num_targets),
            golden_.shape.router_aux_loss_coef * share};
  }
  double AuxLoss() const {
    const auto it = golden_.tensors.find("aux_loss");
    return it == golden_.tensors.end() ? 0 : it->second.item<double>();
  }
  void ExpectGradients(Decoder& decoder, double factor = 1) {
    for (size_t i = 0; i < decoder.parameters().parameters().size(); ++i) {
      const Parameter& p = decoder.parameters().parameters()[i];
      const at::Tensor got = decoder.Gradient(static_cast<int>(i)).mul(factor);
      EXPECT_LT(RelativeError(got, golden_.tensors.at("grad." + p.name)), kGradientTolerance)
          << p.name;
    }
  }

  Golden golden_;
  Batch batch_;
};

TEST_P(GoldenTest, LogitsAgree) {
  SingleRank rank = Load();
  const at::Tensor logits = rank.decoder->Logits(batch_);
  const at::Tensor& expected = golden_.tensors.at("logits");
  // At padding Transformers computes logits that nobody may use.
  const at::Tensor valid = batch_.valid_T.unsqueeze(1);
  EXPECT_LT(RelativeError(logits.mul(valid), expected.flatten(0, 1).mul(valid)), kOutputTolerance);
}

TEST_P(GoldenTest, LossAuxiliaryLossAndEveryGradientAgreeWhateverIsRecomputed) {
  for (const ActivationMemory activations : kActivationMemories) {
    SCOPED_TRACE(ActivationMemoryName(activations));
    SingleRank rank = Load(1, activations);
    const MicroBatchResult result = rank.decoder->ForwardBackward(batch_, Scale());
    EXPECT_EQ(result.targets, batch_.num_targets);
    const double loss = result.cross_entropy_sum() / static_cast<double>(result.targets) +
                        golden_.shape.router_aux_loss_coef * result.aux_loss();
    EXPECT_NEAR(result.aux_loss(), AuxLoss(), kOutputTolerance * AuxLoss());
    EXPECT_NEAR(loss, golden_.tensors.at("loss").item<double>(), kOutputTolerance * loss);
    ExpectGradients(*rank.decoder);
  }
}

TEST_P(GoldenTest, RecomputationGivesTheSameBytes) {
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
    for (const int64_t accumulation : {1, 2}) {
      std::vector<at::Tensor> kept;
      for (const ActivationMemory activations : kActivationMemories) {
        SCOPED_TRACE(ActivationMemoryName(activations));
        SingleRank rank = Load(accumulation, activations, precision);
        rank.decoder->ZeroGradients();
        for (int64_t i = 0; i < accumulation; ++i) rank.decoder->ForwardBackward(batch_, Scale());
        const std::vector<at::Tensor> gradients = Gradients(*rank.decoder);
        if (kept.empty()) kept = gradients;
        for (size_t b = 0; b < kept.size(); ++b)
          EXPECT_TRUE(gradients[b].equal(kept[b])) << "block " << b;
      }
    }
  }
}

TEST_P(GoldenTest, ASecondStepOverTheSameMemoryGivesTheSameBytes) {
  SingleRank rank = Load();
  rank.decoder->ForwardBackward(batch_, Scale());
  const std::vector<at::Tensor> first = Gradients(*rank.decoder);
  rank.decoder->Evaluate(batch_);
  rank.decoder->ZeroGradients();
  rank.decoder->ForwardBackward(batch_, Scale());
  for (size_t b = 0; b < first.size(); ++b) {
    EXPECT_TRUE(first[b].equal(rank.decoder->BlockGradient(static_cast<int>(b)))) << "block " << b;
  }
}

TEST_P(GoldenTest, AccumulatedGradientsAreTheSumOverMicroBatches) {
  SingleRank rank = Load(/*accumulation=*/2);
  rank.decoder->ZeroGradients();
  for (int i = 0; i < 2; ++i) rank.decoder->ForwardBackward(batch_, Scale());
  ExpectGradients(*rank.decoder, 0.5);
  rank.decoder->ZeroGradients();
  rank.decoder->ForwardBackward(batch_, Scale());
  ExpectGradients(*rank.decoder);
}

TEST_P(GoldenTest, EvaluationGivesTheCrossEntropyOfTraining) {
  SingleRank rank = Load();
  const EvalResult eval = rank.decoder->Evaluate(batch_);
  EXPECT_EQ(eval.targets, batch_.num_targets);
  const MicroBatchResult train = rank.decoder->ForwardBackward(batch_, Scale());
  EXPECT_NEAR(eval.cross_entropy_sum, train.cross_entropy_sum(), 1e-6 * train.cross_entropy_sum());
}

TEST_P(GoldenTest, ArenasAreUsedToTheByte) {
  for (const int64_t accumulation : {1, 2}) {
    for (const ActivationMemory activations : kActivationMemories) {
      SCOPED_TRACE(ActivationMemoryName(activations));
      SingleRank rank = Load(accumulation, activations);
      rank.decoder->ForwardBackward(batch_, Scale());
      const ArenaUse use = rank.decoder->arena_use();
      EXPECT_LE(use.high_water, use.planned);
      EXPECT_GE(static_cast<double>(use.high_water), 0.85 * static_cast<double>(use.planned));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest, testing::ValuesIn(GoldenCases()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace switchyard::trainer
