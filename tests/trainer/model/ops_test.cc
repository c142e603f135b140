// Every operation's backward against LibTorch's autograd of the plain formula, in float32.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/trainer/model/golden.h"
#include "worker/trainer/ops/attention.h"
#include "worker/trainer/ops/cross_entropy.h"
#include "worker/trainer/ops/grouped_gemm.h"
#include "worker/trainer/ops/qk_norm_rope.h"
#include "worker/trainer/ops/rms_norm.h"
#include "worker/trainer/ops/router.h"
#include "worker/trainer/ops/rows.h"
#include "worker/trainer/ops/swiglu.h"

namespace switchyard::trainer {
namespace {

constexpr double kTolerance = 2e-6;
constexpr double kBfloat16 = 2e-2;

at::Tensor Leaf(at::IntArrayRef sizes) { return at::randn(sizes).requires_grad_(true); }
ops::WeightGradient Destination(const at::Tensor& like) {
  return {at::zeros_like(like), false, {}};
}

// Gradients of sum(output * grad) at the leaves.
void RunAutograd(const at::Tensor& output, const at::Tensor& grad) {
  output.mul(grad).sum().backward();
}

at::Tensor NormFormula(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x.mul(at::rsqrt(x.square().mean(-1, true).add(eps))).mul(weight);
}

TEST(RmsNormTest, ForwardAndBackwardAgreeWithAutograd) {
  for (int64_t rows : {1, 7, 700}) {
    const at::Tensor x = Leaf({rows, 96}), weight = Leaf({96}), grad = at::randn({rows, 96});
    const at::Tensor y = NormFormula(x, weight, 1e-5);
    RunAutograd(y, grad);
    const at::Tensor out = at::zeros({rows, 96}), before = at::randn({rows, 96});
    ops::RmsNorm(x.detach(), weight.detach(), 1e-5, out);
    EXPECT_LT(RelativeError(out, y.detach()), kTolerance);
    const at::Tensor grad_x = before.clone();
    const ops::WeightGradient grad_weight = Destination(weight.detach());
    ops::RmsNormBackward(grad, x.detach(), weight.detach(), 1e-5, grad_x, grad_weight);
    EXPECT_LT(RelativeError(grad_x, x.grad().add(before)), kTolerance);
    EXPECT_LT(RelativeError(grad_weight.value, weight.grad()), kTolerance);
  }
}

TEST(RmsNormTest, Bfloat16RoundsTheFloat32Result) {
  const at::Tensor x = at::randn({50, 64}), weight = at::rand({64}).add(0.5);
  const at::Tensor out = at::zeros({50, 64}, at::kBFloat16);
  ops::RmsNorm(x.to(at::kBFloat16), weight.to(at::kBFloat16), 1e-6, out);
  EXPECT_LT(RelativeError(out, NormFormula(x, weight, 1e-6)), kBfloat16);
}

TEST(QkNormRopeTest, ForwardAndBackwardAgreeWithAutograd) {
  constexpr int64_t kTokens = 300, kHeads = 6, kKeys = 2, kDim = 16;
  const at::Tensor qkv = Leaf({kTokens, (kHeads + 2 * kKeys) * kDim});
  const at::Tensor query_weight = Leaf({kDim}), key_weight = Leaf({kDim});
  const at::Tensor cos = at::zeros({kTokens, kDim / 2}), sin = at::zeros({kTokens, kDim / 2});
  const at::Tensor position = at::arange(kTokens, at::kLong).remainder(37);
  ops::RotaryTables(position, 10000, cos, sin);
  const ops::QkNormRope op{
      query_weight.detach(), key_weight.detach(), 1e-6, kHeads, kKeys, kDim, cos, sin};

  const auto rotate = [&](const at::Tensor& x) {  // as Transformers writes it
    const at::Tensor turned = at::cat({x.slice(2, kDim / 2).neg(), x.slice(2, 0, kDim / 2)}, 2);
    return x.mul(at::cat({cos, cos}, 1).unsqueeze(1))
        .add(turned.mul(at::cat({sin, sin}, 1).unsqueeze(1)));
  };
  const at::Tensor heads = qkv.view({kTokens, -1, kDim});
  const at::Tensor q = rotate(NormFormula(heads.narrow(1, 0, kHeads), query_weight, 1e-6));
  const at::Tensor k = rotate(NormFormula(heads.narrow(1, kHeads, kKeys), key_weight, 1e-6));
  const at::Tensor expected = at::cat({q, k}, 1).flatten(1);
  const at::Tensor grad = at::randn(expected.sizes());
  RunAutograd(expected, grad);

  const at::Tensor qk = at::zeros(expected.sizes());
  ops::QkNormRopeForward(op, qkv.detach(), qk);
  EXPECT_LT(RelativeError(qk, expected.detach()), kTolerance);
  const at::Tensor grad_qkv = at::cat({grad, at::zeros({kTokens, kKeys * kDim})}, 1);
  const ops::WeightGradient grad_query = Destination(op.query_weight),
                            grad_key = Destination(op.key_weight);
  const ops::QkvGradient columns = {grad_qkv.narrow(1, 0, kHeads * kDim),
                                    grad_qkv.narrow(1, kHeads * kDim, kKeys * kDim),
                                    grad_qkv.narrow(1, (kHeads + kKeys) * kDim, kKeys * kDim)};
  ops::QkNormRopeBackward(op, qkv.detach(), columns, grad_qkv, grad_query, grad_key);
  EXPECT_LT(RelativeError(grad_qkv, qkv.grad()), kTolerance);
  EXPECT_LT(RelativeError(grad_query.value, query_weight.grad()), kTolerance);
  EXPECT_LT(RelativeError(grad_key.value, key_weight.grad()), kTolerance);
}

// Plain attention over [T, heads, C] with a mask made from documents.
at::Tensor AttentionFormula(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            int64_t share, const at::Tensor& document) {
  const at::Tensor keys = k.repeat_interleave(share, 1).transpose(0, 1);
  const at::Tensor values = v.repeat_interleave(share, 1).transpose(0, 1);
  const at::Tensor same = document.unsqueeze(1).eq(document.unsqueeze(0)).tril();
  const at::Tensor scores = at::matmul(q.transpose(0, 1), keys.transpose(1, 2))
                                .mul(1 / std::sqrt(static_cast<double>(q.size(2))))
                                .masked_fill(same.logical_not(), -INFINITY);
  return at::matmul(at::softmax(scores, -1), values).transpose(0, 1);
}

TEST(CausalAttentionTest, ForwardAndBackwardAgreeWithAutogradWithinDocuments) {
  constexpr int64_t kDim = 16;
  const at::Tensor offset =
      at::tensor({0, 1, 70, 70, 200}, at::kInt);  // one token, an empty one, long ones
  at::Tensor document = at::zeros({200}, at::kLong);
  document.slice(0, 1, 70).fill_(1);
  document.slice(0, 70).fill_(2);
  for (int64_t keys : {1, 2, 4}) {
    const ops::AttentionShape shape{4, keys, kDim};
    const at::Tensor q = Leaf({200, 4, kDim}), k = Leaf({200, keys, kDim}),
                     v = Leaf({200, keys, kDim});
    const at::Tensor expected = AttentionFormula(q, k, v, 4 / keys, document);
    const at::Tensor grad = at::randn(expected.sizes());
    RunAutograd(expected, grad);
    const at::Tensor out = at::zeros({200, 4 * kDim}), lse = at::zeros({200, 4});
    const at::Tensor rows_q = q.detach().flatten(1), rows_k = k.detach().flatten(1),
                     rows_v = v.detach().flatten(1);
    ops::CausalAttention(shape, rows_q, rows_k, rows_v, offset, out, lse);
    EXPECT_LT(RelativeError(out, expected.detach().flatten(1)), kTolerance);
    const at::Tensor dq = at::zeros_like(rows_q), dk = at::zeros_like(rows_k),
                     dv = at::zeros_like(rows_v);
    ops::CausalAttentionBackward(shape, grad.flatten(1), rows_q, rows_k, rows_v, out, lse, offset,
                                 dq, dk, dv);
    EXPECT_LT(RelativeError(dq, q.grad().flatten(1)), kTolerance);
    EXPECT_LT(RelativeError(dk, k.grad().flatten(1)), kTolerance);
    EXPECT_LT(RelativeError(dv, v.grad().flatten(1)), kTolerance);
  }
}

TEST(SwiGluTest, ForwardAndBackwardAgreeWithAutogradWithAndWithoutRowWeights) {
  for (bool weighted : {false, true}) {
    const at::Tensor gate_up = Leaf({500, 2 * 48}), weight = Leaf({500}),
                     grad = at::randn({500, 48});
    at::Tensor expected = at::silu(gate_up.slice(1, 0, 48)).mul(gate_up.slice(1, 48));
    if (weighted) expected = expected.mul(weight.unsqueeze(1));
    RunAutograd(expected, grad);
    const at::Tensor rows = weighted ? weight.detach() : at::Tensor();
    const at::Tensor out = at::zeros({500, 48}), again = at::zeros({500, 48});
    const at::Tensor grad_weight = weighted ? at::zeros({500}) : at::Tensor();
    ops::SwiGlu(gate_up.detach(), rows, out);
    EXPECT_LT(RelativeError(out, expected.detach()), kTolerance);
    const at::Tensor in_place = gate_up.detach().clone();
    ops::SwiGluBackward(grad, rows, in_place, again, grad_weight);
    EXPECT_LT(RelativeError(again, out), kTolerance);
    EXPECT_LT(RelativeError(in_place, gate_up.grad()), kTolerance);
    if (weighted) {
      EXPECT_LT(RelativeError(grad_weight, weight.grad()), kTolerance);
    }
  }
}

TEST(RouterTest, WeightsAndGradientsAgreeWithAutogradAndPaddingIsNotRouted) {
  for (bool renormalize : {false, true}) {
    const ops::RouterRule rule{3, renormalize};
    const at::Tensor logits = Leaf({40, 8}), grad_weight = at::randn({40, 3}),
                     balance = at::randn({8});
    const at::Tensor valid = at::arange(40, at::kLong).lt(33);
    const at::Tensor mask = valid.to(at::kFloat).unsqueeze(1);
    const at::Tensor probability = at::softmax(logits, 1);
    auto [chosen, index] = at::topk(probability, 3, 1);
    if (renormalize) chosen = chosen.div(chosen.sum(1, true));
    chosen.mul(grad_weight)
        .mul(mask)
        .sum()
        .add(probability.mul(balance).mul(mask).sum())
        .backward();

    const at::Tensor weight = at::zeros({40, 3}), expert = at::zeros({40, 3}, at::kLong);
    const ops::RouterStatistics statistics = {at::zeros({8}, at::kInt), at::zeros({8}),
                                              at::zeros({1})};
    ops::RouteTokens(rule, logits.detach(), valid, expert, weight, statistics);
    EXPECT_EQ(statistics.count_E.sum().item<int64_t>(), 33 * 3);
    const at::Tensor p = probability.detach().narrow(0, 0, 33);
    EXPECT_LT(RelativeError(statistics.probability_E, p.sum(0)), kTolerance);
    EXPECT_LT(RelativeError(statistics.entropy, p.log().mul(p).sum().neg().view(1)), kTolerance);
    EXPECT_TRUE(expert.slice(0, 0, 33).equal(index.slice(0, 0, 33)));
    EXPECT_TRUE(expert.slice(0, 33).eq(-1).all().item<bool>());
    EXPECT_LT(RelativeError(weight, chosen.detach().mul(mask)), kTolerance);
    const at::Tensor grad = at::zeros({40, 8});
    ops::RouteTokensBackward(rule, grad_weight, balance, logits.detach(), expert, valid, grad);
    EXPECT_LT(RelativeError(grad, logits.grad()), kTolerance);
  }
}

TEST(CrossEntropyTest, LossAndGradientAgreeWithAutograd) {
  const at::Tensor logits = Leaf({130, 301}), target = at::randint(0, 301, {130}, at::kLong);
  const at::Tensor expected = at::cross_entropy_loss(logits, target, {}, /*reduction=*/0);
  RunAutograd(expected, at::full({130}, 0.25));
  const at::Tensor in_place = logits.detach().clone(), loss = at::zeros({130}),
                   eval = at::zeros({130});
  ops::CrossEntropy(in_place, target, eval);
  EXPECT_TRUE(in_place.equal(logits.detach()));
  ops::CrossEntropyWithGradient(in_place, target, 0.25, loss);
  EXPECT_LT(RelativeError(loss, expected.detach()), kTolerance);
  EXPECT_TRUE(loss.equal(eval));
  EXPECT_LT(RelativeError(in_place, logits.grad()), kTolerance);
}

TEST(GroupedGemmTest, PiecesGiveWhatTheWholeListGivesAndEmptyExpertsGetZero) {
  const at::Tensor offset = at::tensor({0, 5, 5, 25, 30}, at::kInt);  // expert 1 has no rows
  const at::Tensor x = at::randn({30, 12}), weight = at::randn({4, 20, 12}),
                   grad = at::randn({30, 20});
  at::Tensor out = at::zeros({30, 20}), back = at::zeros({30, 12}), dw = at::full({4, 20, 12}, 7.0);
  for (int64_t begin = 0; begin < 30; begin += 8) {
    const int64_t end = std::min<int64_t>(30, begin + 8);
    const ops::ExpertRows piece{offset, begin};
    ops::GroupedGemm(piece, x.slice(0, begin, end), weight, out.slice(0, begin, end));
    ops::GroupedGemmTransposed(piece, grad.slice(0, begin, end), weight, back.slice(0, begin, end));
    ops::GroupedWeightGradient(piece, grad.slice(0, begin, end), x.slice(0, begin, end),
                               {dw, false, {}});
  }
  const std::vector<std::pair<int64_t, int64_t>> ranges = {{0, 5}, {5, 5}, {5, 25}, {25, 30}};
  for (int64_t l = 0; l < 4; ++l) {
    const auto [b, e] = ranges[l];
    const at::Tensor x_l = x.slice(0, b, e), g_l = grad.slice(0, b, e);
    EXPECT_LT(RelativeError(out.slice(0, b, e), x_l.matmul(weight[l].t())), kTolerance);
    EXPECT_LT(RelativeError(back.slice(0, b, e), g_l.matmul(weight[l])), kTolerance);
    EXPECT_LT(RelativeError(dw[l], g_l.t().matmul(x_l)), kTolerance);
  }
}

ops::TokensById Sorted(const at::Tensor& id_T, int64_t vocab) {
  const ops::TokensById order = {at::empty(id_T.sizes(), at::kInt),
                                 at::empty(id_T.sizes(), at::kInt)};
  ops::SortTokens(id_T, vocab, order);
  return order;
}

TEST(RowsTest, EmbeddingGradientSumsEqualIdsAndSkipsPadding) {
  const at::Tensor id = at::tensor({3, 1, 3, 0, 3, 5, 0}, at::kLong), grad = at::randn({7, 9});
  const ops::TokensById order = Sorted(id, 6);
  EXPECT_TRUE(order.token_T.equal(at::tensor({3, 6, 1, 0, 2, 4, 5}, at::kInt)));
  EXPECT_TRUE(order.id_T.equal(at::tensor({0, 0, 1, 3, 3, 3, 5}, at::kInt)));
  at::Tensor expected = at::ones({6, 9}).index_add_(0, id, grad);
  expected.select(0, 0).fill_(1);
  at::Tensor out = at::ones({6, 9});
  ops::AddEmbeddingGradient({grad, id, /*skipped_id=*/0}, order, {out, 0, 54, /*add=*/true});
  EXPECT_LT(RelativeError(out, expected), kTolerance);

  // Set and not added to; ids that do not occur, and the skipped one, stay.
  expected = at::zeros({6, 9}).index_add_(0, id, grad);
  for (int row : {0, 2, 4}) expected.select(0, row).fill_(1);
  out = at::ones({6, 9});
  ops::AddEmbeddingGradient({grad, id, /*skipped_id=*/0}, order, {out, 0, 54, /*add=*/false});
  EXPECT_LT(RelativeError(out, expected), kTolerance);
}

TEST(RowsTest, PartsOfATableThatEndWithinARowAreTogetherTheWhole) {
  const at::Tensor id = at::randint(40, {200}, at::kLong), grad = at::randn({200, 16});
  const ops::TokensById order = Sorted(id, 40);
  const at::Tensor whole = at::zeros({40, 16}), parts = at::zeros({40, 16});
  ops::AddEmbeddingGradient({grad, id}, order, {whole, 0, 640, false});
  for (int64_t first = 0; first < 640; first += 72) {
    const int64_t end = std::min<int64_t>(first + 72, 640);
    ops::AddEmbeddingGradient({grad, id}, order, {parts, first, end, false});
  }
  EXPECT_TRUE(parts.equal(whole));
  EXPECT_LT(RelativeError(whole, at::zeros({40, 16}).index_add_(0, id, grad)), kTolerance);
}

TEST(RowsTest, Bfloat16SumsAreTakenInFloat32) {
  // Thousand small terms beside a large one vanish when every addition is rounded to bfloat16.
  at::Tensor grad = at::full({1001, 4}, 0.001, at::kBFloat16);
  grad[0].fill_(1);
  const at::Tensor out = at::zeros({2, 4}, at::kBFloat16), id = at::zeros({1001}, at::kLong);
  ops::AddEmbeddingGradient({grad, id}, Sorted(id, 2), {out, 0, 8, true});
  EXPECT_NEAR(out[0][0].item<double>(), 2.0, 0.02);
}

}  // namespace
}  // namespace switchyard::trainer
