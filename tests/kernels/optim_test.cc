#include <bit>

#include "kernels/device/adamw_math.cuh"
#include "kernels/reference/reference.h"
#include "tests/kernels/device_buffer.h"

namespace switchyard::kernels {
namespace {

const auto host = [](auto& b) { return b.host(); };
const auto device = [](auto& b) { return b.device(); };

TEST(SplitMasterTest, JoinsBackToTheSameFloatForEveryKindOfValue) {
  for (uint32_t bits :
       {0u, 1u, 0x80000000u, 0x00007fffu, 0x00008000u, 0x3f800000u, 0x3f807fffu, 0x3f808000u,
        0x3fffffffu, 0xbf7fffffu, 0x7f7fffffu, 0x00800000u, 0xc2f6e979u}) {
    uint16_t hi;
    int16_t remainder;
    SplitMaster(std::bit_cast<float>(bits), hi, remainder);
    EXPECT_EQ(std::bit_cast<uint32_t>(JoinMaster(hi, remainder)), bits) << std::hex << bits;
  }
}

TEST(RoundStochasticTest, IsUnbiasedAndKeepsExactValues) {
  const float value = 1.0f + 0.25f / 128;  // a quarter of the way to the next bfloat16
  double sum = 0;
  constexpr int kDraws = 1 << 16;
  for (uint32_t random = 0; random < kDraws; ++random) {
    sum += std::bit_cast<float>(static_cast<uint32_t>(RoundStochastic(value, random)) << 16);
  }
  EXPECT_NEAR(sum / kDraws, value, 1e-7);
  EXPECT_EQ(RoundStochastic(1.0f, 0xffff), 0x3f80);
  EXPECT_EQ(RoundStochastic(INFINITY, 0xffff), 0x7f80);
  EXPECT_TRUE(
      std::isnan(std::bit_cast<float>(static_cast<uint32_t>(RoundStochastic(NAN, 0xffff)) << 16)));
}

class AdamwTest : public testing::TestWithParam<bool> {};  // bfloat16 or float32 gradient

TEST_P(AdamwTest, ExactMatchesTheHostToTheBitAndCompactButForRareRoundings) {
  SWITCHYARD_REQUIRE_GPU();
  constexpr int64_t kNumel = 200'000;
  Buffer<nv_bfloat16> weight(kNumel), grad(kNumel), compact_weight(kNumel), compact_m(kNumel),
      compact_v(kNumel);
  Buffer<int16_t> remainder(kNumel);
  Buffer<float> m(kNumel), v(kNumel), grad_float32(kNumel);
  Buffer<AdamwScalars> scalars(1);
  Buffer<AdamwSegment> segments(3);
  FillNormal(weight, 0.02);
  FillNormal(compact_weight, 0.02);
  std::fill_n(m.host(), kNumel, 0.0f), m.Upload();
  std::fill_n(v.host(), kNumel, 0.0f), v.Upload();
  std::fill_n(compact_m.host(), kNumel, ToBf16(0)), compact_m.Upload();
  std::fill_n(compact_v.host(), kNumel, ToBf16(0)), compact_v.Upload();
  std::fill_n(remainder.host(), kNumel, int16_t{0}), remainder.Upload();
  segments[0] = {0, 800, 3, 0.1f};
  segments[1] = {64'000, 0, 4, 0.0f};
  segments[2] = {64'008, 1'000'000'000'000, 9, 0.1f};
  segments.Upload();
  const bool bf16_gradient = GetParam();
  for (uint32_t step = 1; step <= 3; ++step) {
    const auto t = static_cast<float>(step);
    scalars[0] = {0.37f, 0, 1 - std::pow(0.9f, t), 1 - std::pow(0.999f, t), step, 0};
    scalars.Upload();
    FillNormal(grad, 0.1);
    FillNormal(grad_float32, 0.1);
    const auto params = [&](auto pointer, bool compact) {
      AdamwParams p{};
      p.weight = compact ? pointer(compact_weight) : pointer(weight),
      p.remainder = pointer(remainder);
      p.exp_avg = pointer(m), p.exp_avg_sq = pointer(v);
      p.compact_exp_avg = pointer(compact_m), p.compact_exp_avg_sq = pointer(compact_v);
      if (bf16_gradient) {
        p.grad = pointer(grad);
      } else {
        p.grad_float32 = pointer(grad_float32);
      }
      p.numel = kNumel, p.segments = pointer(segments), p.num_segments = 3,
      p.scalars = pointer(scalars);
      p.learning_rate = 1e-3f, p.beta1 = 0.9f, p.beta2 = 0.999f, p.eps = 1e-8f;
      p.seed = 0x123456789abcdefull;
      return p;
    };
    reference::AdamwExact(params(host, false));
    ASSERT_EQ(AdamwExact(params(device, false), nullptr), cudaSuccess);
    reference::AdamwCompact(params(host, true));
    ASSERT_EQ(AdamwCompact(params(device, true), nullptr), cudaSuccess);
    EXPECT_TRUE(SameBytes(weight));
    EXPECT_TRUE(SameBytes(remainder));
    EXPECT_TRUE(SameBytes(m));
    EXPECT_TRUE(SameBytes(v));
    // The device divides approximately, so a draw near its threshold may round the other way:
    // rarely, and by one unit. Wrong random words would differ in half of all elements.
    for (Buffer<nv_bfloat16>* b : {&compact_weight, &compact_m, &compact_v}) {
      const std::vector<nv_bfloat16> values = b->Download();
      int64_t different = 0;
      for (int64_t i = 0; i < kNumel; ++i) different += ToFloat(values[i]) != ToFloat((*b)[i]);
      EXPECT_LT(different, kNumel / 200);
      EXPECT_LT(RelativeError(*b), 1e-3);
      b->Upload();  // go on from the same state
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Gradients, AdamwTest, testing::Bool());

TEST(AdamwTest, ARaisedSkipFlagLeavesEverythingAsItIsAndMarksTheTensorsThatWereNotFinite) {
  SWITCHYARD_REQUIRE_GPU();
  Buffer<nv_bfloat16> weight(64), grad(64);
  Buffer<int16_t> remainder(64);
  Buffer<float> m(64), v(64);
  Buffer<AdamwSegment> segments(3);
  Buffer<int32_t> non_finite(6);
  Buffer<AdamwScalars> scalars(1);
  FillNormal(weight);
  FillNormal(grad);
  grad[13] = __float2bfloat16(INFINITY), grad.Upload();
  FillNormal(m);
  FillNormal(v);
  remainder.Upload();
  scalars[0] = {NAN, 1, 1, 1, 1, NAN}, scalars.Upload();
  segments[0] = {0, 0, 3 << 16, 0.0f}, segments[1] = {8, 0, 5 << 16 | 7, 0.0f};
  segments[2] = {16, 0, 2 << 16, 0.0f}, segments.Upload();
  for (int i = 0; i < 6; ++i) non_finite[i] = 0;
  non_finite.Upload();
  AdamwParams p{};
  p.weight = weight.device(), p.remainder = remainder.device(), p.exp_avg = m.device();
  p.exp_avg_sq = v.device(), p.grad = grad.device(), p.numel = 64, p.segments = segments.device();
  p.num_segments = 3, p.non_finite = non_finite.device(), p.scalars = scalars.device(),
  p.learning_rate = 1;
  ASSERT_EQ(AdamwExact(p, nullptr), cudaSuccess);
  EXPECT_TRUE(SameBytes(weight) && SameBytes(remainder) && SameBytes(m) && SameBytes(v));
  EXPECT_EQ(non_finite.Download(), (std::vector<int32_t>{0, 0, 0, 0, 0, 1}));
}

TEST(AdamwTest, TheStepCountAdvancesOnlyWhenEverythingIsFinite) {
  SWITCHYARD_REQUIRE_GPU();
  Buffer<double> squares(1), finite(2);
  Buffer<AdamwScalars> scalars(1);
  scalars[0] = {0, 0, 0, 0, 4, 0}, scalars.Upload();
  const auto prepare = [&](double sum, double other) {
    squares[0] = sum, squares.Upload();
    finite[0] = 1, finite[1] = other, finite.Upload();
    EXPECT_EQ(
        PrepareAdamw({squares.device(), finite.device(), 2, 1.0, 0.9f, 0.999f, scalars.device()},
                     nullptr),
        cudaSuccess);
    return scalars.Download()[0];
  };
  AdamwScalars got = prepare(16, 2);
  EXPECT_EQ(got.skip, 0);
  EXPECT_EQ(got.step, 5u);
  EXPECT_FLOAT_EQ(got.grad_norm, 4);
  EXPECT_NEAR(got.grad_scale, 0.25, 1e-6);
  EXPECT_NEAR(got.correction1, 1 - std::pow(0.9, 5), 1e-6);
  EXPECT_NEAR(got.correction2, 1 - std::pow(0.999, 5), 1e-6);
  got = prepare(NAN, 2);
  EXPECT_EQ(got.skip, 1);
  EXPECT_EQ(got.step, 5u);
  got = prepare(16, INFINITY);
  EXPECT_EQ(got.skip, 1);
  got = prepare(0.25, 2);
  EXPECT_EQ(got.skip, 0);
  EXPECT_EQ(got.step, 6u);
  EXPECT_FLOAT_EQ(got.grad_scale, 1);
}

TEST(SumOfSquaresTest, MatchesTheReferenceAndCarriesNan) {
  SWITCHYARD_REQUIRE_GPU();
  Buffer<nv_bfloat16> x(3'000'008);
  Buffer<double> sum(1), workspace(SumOfSquaresWorkspaceBytes() / sizeof(double));
  FillNormal(x);
  sum[0] = 5, sum.Upload();
  const auto params = [&](auto pointer) {
    return SumOfSquaresParams{pointer(x), nullptr, static_cast<int64_t>(x.size()), pointer(sum),
                              true};
  };
  reference::SumOfSquares(params(host));
  ASSERT_EQ(SumOfSquares(params(device), workspace.device(), nullptr), cudaSuccess);
  EXPECT_NEAR(sum.Download()[0] / sum[0], 1.0, 1e-6);
  x[1'234'567] = ToBf16(NAN);
  x.Upload();
  ASSERT_EQ(SumOfSquares(params(device), workspace.device(), nullptr), cudaSuccess);
  EXPECT_TRUE(std::isnan(sum.Download()[0]));
}

class CrossEntropyTest : public testing::TestWithParam<std::tuple<int, int>> {};  // tokens, vocab

TEST_P(CrossEntropyTest, LossAndGradientMatchTheReference) {
  SWITCHYARD_REQUIRE_GPU();
  const auto [tokens, vocab] = GetParam();
  Buffer<nv_bfloat16> logits(static_cast<size_t>(tokens) * vocab);
  Buffer<int64_t> target(tokens);
  Buffer<float> loss(tokens);
  FillNormal(logits, 3.0);
  // Without a target: rows here and there, and all rows of one block of the H200's 132.
  for (int t = 0; t < tokens; ++t) {
    target[t] = t % 5 == 3 || t % 132 == 7 ? -100 : (t * 7919LL) % vocab;
  }
  target.Upload();
  const auto params = [&](auto pointer) {
    return CrossEntropyParams{pointer(logits), pointer(target), pointer(loss),
                              tokens,          vocab,           0.01f};
  };
  reference::CrossEntropyInPlace(params(host));
  ASSERT_EQ(CrossEntropyInPlace(params(device), nullptr), cudaSuccess);
  EXPECT_LT(RelativeError(loss), kFloatTolerance);
  EXPECT_LT(RelativeError(logits), kBf16Tolerance);
}

INSTANTIATE_TEST_SUITE_P(Shapes, CrossEntropyTest,
                         // The last: longer than what stays on the chip.
                         testing::Values(std::tuple{1, 64}, std::tuple{500, 8},
                                         std::tuple{40, 8192}, std::tuple{270, 8192},
                                         std::tuple{400, 40'968}, std::tuple{7, 151'936},
                                         std::tuple{270, 151'936}, std::tuple{135, 172'040}));

struct EmbeddingCase {
  int tokens, vocab, hidden;
  bool float32, add;
  int64_t first_element, end_element;
  bool one_id = false;  // the last of the vocabulary, for all tokens
};

class EmbeddingGradientTest : public testing::TestWithParam<EmbeddingCase> {};

TEST_P(EmbeddingGradientTest, SumsEachTokensRowOnceWhateverRepeats) {
  SWITCHYARD_REQUIRE_GPU();
  const EmbeddingCase& c = GetParam();
  Buffer<int64_t> id(c.tokens);
  Buffer<int32_t> sorted_id(c.tokens), token(c.tokens);
  Buffer<nv_bfloat16> grad_y(static_cast<size_t>(c.tokens) * c.hidden),
      table(static_cast<size_t>(c.vocab) * c.hidden);
  Buffer<float> table_float32(table.size());
  FillNormal(grad_y);
  FillNormal(table);
  FillNormal(table_float32);
  // A long run, runs of up to 16, and single ones.
  int next = 0;
  for (int t = 0; t < c.tokens; ++t) {
    if (t % 17 == 0) ++next;
    id[t] = t % 4 == 1 ? 17 : (t % 17 < next % 17 ? next : t * 31) % c.vocab;
    if (c.one_id) id[t] = c.vocab - 1;
  }
  id.Upload();
  Buffer<char> workspace(SortTokensWorkspaceBytes(c.tokens, c.vocab));
  const auto order = [&](auto pointer) {
    return SortTokensParams{.id_T = pointer(id),
                            .sorted_id_T = pointer(sorted_id),
                            .token_T = pointer(token),
                            .num_tokens = c.tokens,
                            .vocab = c.vocab};
  };
  reference::SortTokens(order(host));
  ASSERT_EQ(SortTokens(order(device), workspace.device(), nullptr), cudaSuccess);
  EXPECT_TRUE(SameBytes(sorted_id));
  EXPECT_TRUE(SameBytes(token));
  const auto params = [&](auto pointer) {
    return EmbeddingGradientParams{
        .sorted_id_T = pointer(sorted_id),
        .token_T = pointer(token),
        .grad_y_TD = pointer(grad_y),
        .grad_table_VD = c.float32 ? nullptr : pointer(table),
        .grad_table_float32_VD = c.float32 ? pointer(table_float32) : nullptr,
        .first_element = c.first_element,
        .end_element = c.end_element,
        .skipped_id = 31,
        .num_tokens = c.tokens,
        .hidden = c.hidden,
        .add = c.add};
  };
  Buffer<char> parts(EmbeddingGradientWorkspaceBytes(c.tokens, c.hidden));
  reference::EmbeddingGradient(params(host));
  ASSERT_EQ(EmbeddingGradient(params(device), parts.device(), nullptr), cudaSuccess);
  EXPECT_LT(RelativeError(table), kBf16Tolerance);
  EXPECT_LT(RelativeError(table_float32), kFloatTolerance);
}

// The third and fourth are the two parts of a table that is cut within a row.
INSTANTIATE_TEST_SUITE_P(
    Shapes, EmbeddingGradientTest,
    testing::Values(EmbeddingCase{3000, 500, 136, false, true, 0, 500 * 136},
                    EmbeddingCase{3000, 500, 136, true, true, 0, 500 * 136},
                    EmbeddingCase{3000, 500, 136, true, false, 0, 72 * 136 + 64},
                    EmbeddingCase{3000, 500, 136, false, false, 72 * 136 + 64, 500 * 136},
                    EmbeddingCase{5, 40, 8, false, false, 0, 40 * 8},
                    EmbeddingCase{1, 40, 8, true, true, 0, 40 * 8},
                    EmbeddingCase{0, 40, 8, false, false, 0, 40 * 8},
                    EmbeddingCase{4096, 3000, 2048, false, false, 0, 3000 * 1024},
                    EmbeddingCase{700, 64, 7176, false, true, 0, 64 * 7176},
                    // More pieces than a block has threads, the last one full or not.
                    EmbeddingCase{8192, 20, 136, true, false, 0, 20 * 136, true},
                    EmbeddingCase{8200, 20, 136, true, true, 0, 20 * 136, true},
                    EmbeddingCase{16, 20, 136, false, false, 0, 20 * 136, true},
                    EmbeddingCase{17, 20, 136, false, true, 0, 20 * 136, true}));

}  // namespace
}  // namespace switchyard::kernels
