#include "kernels/reference/reference.h"
#include "tests/kernels/device_buffer.h"

namespace switchyard::kernels {
namespace {

// Tokens, hidden, with a residual gradient.
class RmsNormTest : public testing::TestWithParam<std::tuple<int, int, bool>> {};

TEST_P(RmsNormTest, ForwardAndBackwardMatchTheReference) {
  SWITCHYARD_REQUIRE_GPU();
  const auto [tokens, hidden, with_residual] = GetParam();
  const size_t n = static_cast<size_t>(tokens) * hidden;
  Buffer<nv_bfloat16> x(n), gamma(hidden), y(n);
  FillNormal(x);
  FillNormal(gamma, 0.2, 1.0);
  const auto forward = [&](auto pointer) {
    RmsNormForwardParams p{};
    p.x_TD = pointer(x), p.gamma_D = pointer(gamma), p.y_TD = pointer(y);
    p.num_tokens = tokens, p.hidden = hidden, p.eps = 1e-6f;
    return p;
  };
  reference::RmsNormForward(forward([](auto& b) { return b.host(); }));
  ASSERT_EQ(RmsNormForward(forward([](auto& b) { return b.device(); }), nullptr), cudaSuccess);
  EXPECT_LT(RelativeError(y), kBf16Tolerance);

  Buffer<nv_bfloat16> grad_y(n), residual(n), grad_x(n), grad_gamma(hidden);
  FillNormal(grad_y);
  FillNormal(residual);
  const auto backward = [&](auto pointer) {
    RmsNormBackwardParams p{};
    p.x_TD = pointer(x), p.gamma_D = pointer(gamma), p.eps = 1e-6f;
    p.grad_y_TD = pointer(grad_y), p.grad_x_TD = pointer(grad_x),
    p.grad_gamma_D = pointer(grad_gamma);
    p.residual_gradient_TD = with_residual ? pointer(residual) : nullptr;
    p.num_tokens = tokens, p.hidden = hidden;
    return p;
  };
  Buffer<float> workspace(RmsNormBackwardWorkspaceBytes(hidden) / sizeof(float));
  reference::RmsNormBackward(backward([](auto& b) { return b.host(); }));
  ASSERT_EQ(
      RmsNormBackward(backward([](auto& b) { return b.device(); }), workspace.device(), nullptr),
      cudaSuccess);
  EXPECT_LT(RelativeError(grad_x), kBf16Tolerance);
  EXPECT_LT(RelativeError(grad_gamma), kBf16Tolerance);

  Buffer<nv_bfloat16>& input = with_residual ? residual : grad_y;
  RmsNormBackwardParams in_place = backward([](auto& b) { return b.device(); });
  in_place.grad_x_TD = input.device();
  ASSERT_EQ(RmsNormBackward(in_place, workspace.device(), nullptr), cudaSuccess);
  std::memcpy(input.host(), grad_x.Download().data(), n * sizeof(nv_bfloat16));
  EXPECT_TRUE(SameBytes(input)) << "a gradient over its own input differs";
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormTest,
                         testing::Values(std::tuple{1, 8, false}, std::tuple{300, 64, true},
                                         std::tuple{517, 2048, true}, std::tuple{33, 4096, true},
                                         std::tuple{5, 8192, false}, std::tuple{129, 1032, true},
                                         // Several rows a group, of which not all have the same.
                                         std::tuple{4001, 64, false}, std::tuple{2717, 2048, true},
                                         std::tuple{2717, 2048, false},
                                         std::tuple{1301, 4096, true},
                                         std::tuple{3333, 1032, false},
                                         std::tuple{700, 8192, true}));

TEST(RmsNormTest, RefusesAHiddenSizeThatIsNoMultipleOfEight) {
  RmsNormForwardParams p{};
  p.hidden = 12, p.num_tokens = 1;
  EXPECT_EQ(RmsNormForward(p, nullptr), cudaErrorInvalidValue);
}

class QkNormRopeTest : public testing::TestWithParam<std::tuple<int, int, int, int>> {};

TEST_P(QkNormRopeTest, ForwardAndBackwardMatchTheReference) {
  SWITCHYARD_REQUIRE_GPU();
  const auto [tokens, heads, kv_heads, head_dim] = GetParam();
  const size_t qkv_size = static_cast<size_t>(tokens) * (heads + 2 * kv_heads) * head_dim;
  const size_t qk_size = static_cast<size_t>(tokens) * (heads + kv_heads) * head_dim;
  constexpr int kPositions = 5000;
  Buffer<nv_bfloat16> qkv(qkv_size), q_gamma(head_dim), k_gamma(head_dim), qk(qk_size),
      grad_qk(qk_size), grad_key(static_cast<size_t>(tokens) * kv_heads * head_dim),
      grad_value(grad_key.size()), grad_qkv(qkv_size), grad_q_gamma(head_dim),
      grad_k_gamma(head_dim);
  Buffer<int32_t> position(tokens);
  Buffer<float2> table(static_cast<size_t>(kPositions) * head_dim / 2);
  FillNormal(qkv);
  FillNormal(q_gamma, 0.2, 1.0);
  FillNormal(k_gamma, 0.2, 1.0);
  FillNormal(grad_qk);  // rows as far apart as those of q: the key part is not read
  FillNormal(grad_key);
  FillNormal(grad_value);
  for (int t = 0; t < tokens; ++t) position[t] = (t * 37) % kPositions;
  position.Upload();
  ASSERT_EQ(FillRopeTable(table.device(), kPositions, head_dim, 1e6, nullptr), cudaSuccess);
  const std::vector<float2> filled = table.Download();
  for (size_t i = 0; i < filled.size(); ++i) {
    const int half = head_dim / 2, p = i / half;
    const double angle =
        p * static_cast<double>(static_cast<float>(std::pow(1e6, -double(i % half) / half)));
    ASSERT_NEAR(filled[i].x, std::cos(angle), 1e-6);
    ASSERT_NEAR(filled[i].y, std::sin(angle), 1e-6);
    table[i] = filled[i];
  }
  const auto forward = [&](auto pointer) {
    return QkNormRopeForwardParams{pointer(qkv),
                                   pointer(q_gamma),
                                   pointer(k_gamma),
                                   pointer(position),
                                   pointer(table),
                                   pointer(qk),
                                   tokens,
                                   heads,
                                   kv_heads,
                                   head_dim,
                                   1e-6f};
  };
  const auto backward = [&](auto pointer) {
    return QkNormRopeBackwardParams{pointer(qkv),
                                    pointer(q_gamma),
                                    pointer(k_gamma),
                                    pointer(position),
                                    pointer(table),
                                    pointer(grad_qk),
                                    pointer(grad_key),
                                    pointer(grad_value),
                                    pointer(grad_qkv),
                                    pointer(grad_q_gamma),
                                    pointer(grad_k_gamma),
                                    tokens,
                                    (heads + kv_heads) * head_dim,
                                    heads,
                                    kv_heads,
                                    head_dim,
                                    1e-6f};
  };
  const auto host = [](auto& b) { return b.host(); };
  const auto device = [](auto& b) { return b.device(); };
  reference::QkNormRopeForward(forward(host));
  ASSERT_EQ(QkNormRopeForward(forward(device), nullptr), cudaSuccess);
  EXPECT_LT(RelativeError(qk), kBf16Tolerance);

  Buffer<float> workspace(QkNormRopeBackwardWorkspaceBytes(head_dim) / sizeof(float));
  reference::QkNormRopeBackward(backward(host));
  ASSERT_EQ(QkNormRopeBackward(backward(device), workspace.device(), nullptr), cudaSuccess);
  EXPECT_LT(RelativeError(grad_qkv), kBf16Tolerance);
  EXPECT_LT(RelativeError(grad_q_gamma), kBf16Tolerance);
  EXPECT_LT(RelativeError(grad_k_gamma), kBf16Tolerance);
}

INSTANTIATE_TEST_SUITE_P(Shapes, QkNormRopeTest,
                         testing::Values(std::tuple{1, 1, 1, 128}, std::tuple{300, 6, 3, 32},
                                         std::tuple{257, 32, 4, 128}, std::tuple{1000, 6, 2, 64},
                                         std::tuple{77, 5, 5, 64},
                                         // Several tokens a block, of which not all have the same.
                                         std::tuple{2717, 32, 4, 128}, std::tuple{2717, 6, 2, 64},
                                         std::tuple{1999, 24, 8, 32}, std::tuple{701, 72, 8, 128}));

}  // namespace
}  // namespace switchyard::kernels
