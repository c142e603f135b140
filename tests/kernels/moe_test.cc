#include <algorithm>
#include <numeric>
#include <set>

#include "kernels/reference/reference.h"
#include "tests/kernels/device_buffer.h"

namespace switchyard::kernels {
namespace {

const auto host = [](auto& b) { return b.host(); };
const auto device = [](auto& b) { return b.device(); };

class SwigluTest : public testing::TestWithParam<std::tuple<int, int, bool>> {
};  // rows, ffn, weighted

TEST_P(SwigluTest, ForwardAndBackwardMatchTheReference) {
  SWITCHYARD_REQUIRE_GPU();
  const auto [rows, ffn, weighted] = GetParam();
  const int max_rows = rows + 7;  // rows beyond the device-side count must not be touched
  const size_t n = static_cast<size_t>(max_rows) * ffn;
  Buffer<nv_bfloat16> gate_up(2 * n), h(n), grad_h(n), grad_gate_up(2 * n), h_again(n);
  Buffer<float> weight(max_rows), grad_weight(max_rows);
  Buffer<int32_t> num_rows(1);
  FillNormal(gate_up, 2.0);
  FillNormal(grad_h);
  FillNormal(weight, 0.1, 0.3);
  FillNormal(h);
  num_rows[0] = rows;
  num_rows.Upload();
  const bool use_weight = weighted;
  const auto forward = [&](auto pointer) {
    return SwigluForwardParams{pointer(gate_up),  use_weight ? pointer(weight) : nullptr,
                               pointer(h),        max_rows,
                               pointer(num_rows), ffn};
  };
  const auto backward = [&](auto pointer) {
    return SwigluBackwardParams{pointer(gate_up),
                                use_weight ? pointer(weight) : nullptr,
                                pointer(grad_h),
                                pointer(grad_gate_up),
                                pointer(h_again),
                                use_weight ? pointer(grad_weight) : nullptr,
                                max_rows,
                                pointer(num_rows),
                                ffn};
  };
  reference::SwigluForward(forward(host));
  ASSERT_EQ(SwigluForward(forward(device), nullptr), cudaSuccess);
  EXPECT_LT(RelativeError(h), kBf16Tolerance);
  reference::SwigluBackward(backward(host));
  ASSERT_EQ(SwigluBackward(backward(device), nullptr), cudaSuccess);
  const size_t valid = static_cast<size_t>(rows) * ffn;
  EXPECT_LT(RelativeError(grad_gate_up, 2 * valid), kBf16Tolerance);
  EXPECT_LT(RelativeError(h_again, valid), kBf16Tolerance);
  if (use_weight) {
    EXPECT_LT(RelativeError(grad_weight, rows), kFloatTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, SwigluTest,
                         testing::Values(std::tuple{1, 8, true}, std::tuple{999, 768, true},
                                         std::tuple{130, 1536, false}, std::tuple{64, 40, true}));

struct RouterShape {
  int tokens, experts, top_k;
  bool renormalise, balance;
};

class RouterTest : public testing::TestWithParam<RouterShape> {};

TEST_P(RouterTest, ForwardAndBackwardMatchTheReference) {
  SWITCHYARD_REQUIRE_GPU();
  const RouterShape s = GetParam();
  Buffer<nv_bfloat16> logits(static_cast<size_t>(s.tokens) * s.experts), grad_logits(logits.size());
  Buffer<int32_t> expert(static_cast<size_t>(s.tokens) * s.top_k), count(s.experts);
  Buffer<float> weight(expert.size()), probability_sum(s.experts), grad_weight(expert.size()),
      balance(s.experts);
  FillNormal(logits);  // bfloat16 logits have ties: the lower expert must win
  FillNormal(grad_weight);
  FillNormal(balance, 0.01);
  Buffer<uint8_t> valid(s.tokens);
  for (int t = 0; t < s.tokens; ++t) valid[t] = t % 7 != 3 ? 1 : 0;
  valid.Upload();
  Buffer<float> entropy(1);
  const auto valid_of = [&](auto pointer) {
    return s.tokens > 1 ? reinterpret_cast<const bool*>(pointer(valid)) : nullptr;
  };
  std::fill_n(count.host(), s.experts, 0);
  count.Upload();
  const auto forward = [&](auto pointer) {
    return RouterForwardParams{pointer(logits),  valid_of(pointer), pointer(expert),
                               pointer(weight),  pointer(count),    pointer(probability_sum),
                               pointer(entropy), s.tokens,          s.experts,
                               s.top_k,          s.renormalise};
  };
  Buffer<float> workspace(RouterForwardWorkspaceBytes(s.experts) / sizeof(float));
  reference::RouterForward(forward(host));
  ASSERT_EQ(RouterForward(forward(device), workspace.device(), nullptr), cudaSuccess);
  EXPECT_TRUE(SameBytes(expert));
  EXPECT_TRUE(SameBytes(count));
  EXPECT_LT(RelativeError(weight), kBf16Tolerance);
  EXPECT_LT(RelativeError(probability_sum), kFloatTolerance);
  EXPECT_LT(RelativeError(entropy), 1e-4);
  const auto backward = [&](auto pointer) {
    return RouterBackwardParams{pointer(logits),
                                valid_of(pointer),
                                pointer(expert),
                                pointer(grad_weight),
                                s.balance ? pointer(balance) : nullptr,
                                pointer(grad_logits),
                                s.tokens,
                                s.experts,
                                s.top_k,
                                s.renormalise};
  };
  reference::RouterBackward(backward(host));
  ASSERT_EQ(RouterBackward(backward(device), nullptr), cudaSuccess);
  EXPECT_LT(RelativeError(grad_logits), kBf16Tolerance);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, RouterTest,
    testing::Values(RouterShape{4096, 128, 8, true, true}, RouterShape{1, 32, 1, false, false},
                    RouterShape{333, 64, 4, false, true}, RouterShape{77, 16, 4, true, true},
                    RouterShape{500, 160, 6, false, true}, RouterShape{50, 512, 22, true, false},
                    RouterShape{1000, 256, 8, true, true}, RouterShape{40, 512, 32, true, true}));

TEST(RoutingTest, RowsAreSortedByExpertThenTokenForAnyShareOfTheExperts) {
  SWITCHYARD_REQUIRE_GPU();
  for (const auto& [tokens, experts, first, local, top_k] :
       {std::tuple{1000, 128, 0, 128, 8}, std::tuple{517, 128, 64, 64, 8},
        std::tuple{64, 16, 4, 4, 4}, std::tuple{1, 8, 0, 8, 2}, std::tuple{300, 8, 0, 4, 4},
        std::tuple{222, 512, 0, 512, 22}, std::tuple{90, 512, 128, 256, 32}}) {
    const size_t choices = static_cast<size_t>(tokens) * top_k;
    Buffer<int32_t> expert(choices), offset(local + 1), row(choices);
    Buffer<float> weight(choices), row_weight(choices);
    FillNormal(weight);
    std::vector<int> all(experts);
    std::iota(all.begin(), all.end(), 0);
    for (int t = 0; t < tokens; ++t) {
      // The last shape sends every token to the same experts, all of them here.
      if (tokens != 300) std::shuffle(all.begin(), all.end(), Rng());
      for (int k = 0; k < top_k; ++k) expert[t * top_k + k] = all[k];
    }
    expert.Upload();
    const auto params = [&](auto pointer) {
      return RoutingParams{
          pointer(expert), pointer(weight), pointer(offset), pointer(row), pointer(row_weight),
          tokens,          first,           local,           top_k};
    };
    Buffer<int32_t> workspace(RoutingWorkspaceBytes(params(device)) / sizeof(int32_t));
    reference::BuildRouting(params(host));
    ASSERT_EQ(BuildRouting(params(device), workspace.device(), nullptr), cudaSuccess);
    const int rows = offset[local];
    EXPECT_TRUE(SameBytes(offset));
    EXPECT_TRUE(SameBytes(row));
    EXPECT_TRUE(SameBytes(row_weight, rows));

    constexpr int kHidden = 1032;  // two chunks of columns, the second nearly empty
    Buffer<nv_bfloat16> x(static_cast<size_t>(tokens) * kHidden), list(choices * kHidden),
        y(static_cast<size_t>(tokens) * kHidden);
    FillNormal(x);
    const auto scatter = [&](auto pointer) {
      return ScatterRowsParams{pointer(x), pointer(row), pointer(list), tokens, kHidden, top_k};
    };
    reference::ScatterRows(scatter(host));
    ASSERT_EQ(ScatterRows(scatter(device), nullptr), cudaSuccess);
    EXPECT_TRUE(SameBytes(list, static_cast<size_t>(rows) * kHidden));
    const auto combine = [&](auto pointer) {
      return CombineRowsParams{pointer(list), pointer(row), tokens % 2 == 0 ? pointer(x) : nullptr,
                               pointer(y),    tokens,       kHidden,
                               top_k};
    };
    reference::CombineRows(combine(host));
    ASSERT_EQ(CombineRows(combine(device), nullptr), cudaSuccess);
    EXPECT_LT(RelativeError(y), kBf16Tolerance);
    Buffer<float> by_choice(choices);
    const auto choose = [&](auto pointer) {
      return GatherChoicesParams{pointer(row_weight), pointer(row), pointer(by_choice),
                                 static_cast<int64_t>(choices)};
    };
    reference::GatherChoices(choose(host));
    ASSERT_EQ(GatherChoices(choose(device), nullptr), cudaSuccess);
    EXPECT_TRUE(SameBytes(by_choice));
  }
}

}  // namespace
}  // namespace switchyard::kernels
