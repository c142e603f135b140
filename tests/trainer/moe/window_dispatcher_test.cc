#include "worker/trainer/moe/window_dispatcher.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "tests/trainer/support/multi_process.h"
#include "worker/trainer/comm/shm_window.h"

namespace switchyard::trainer {
namespace {

struct Case {
  const char* name;
  int ranks;
  int64_t num_experts;
  int64_t tokens;
  int64_t top_k;
  int64_t hidden;
  at::ScalarType type;
  // Expert of choice c of a token, given k distinct random ones.
  enum { kRandom, kAllToOneRank, kPadding, kOneRankIsEmpty, kNothing } routing;
};

struct Inputs {
  at::Tensor x_TD, expert_TK, weight_TK, grad_TD;
};

// The same on every rank, so that a rank can work out what all others send.
Inputs MakeInputs(const Case& c, int rank, int round) {
  std::mt19937 random(1000 * round + rank);
  std::normal_distribution<float> normal;
  Inputs in;
  in.x_TD = at::empty({c.tokens, c.hidden}, at::kFloat);
  in.grad_TD = at::empty({c.tokens, c.hidden}, at::kFloat);
  in.weight_TK = at::empty({c.tokens, c.top_k}, at::kFloat);
  in.expert_TK = at::empty({c.tokens, c.top_k}, at::kLong);
  for (at::Tensor* tensor : {&in.x_TD, &in.grad_TD, &in.weight_TK}) {
    float* data = tensor->mutable_data_ptr<float>();
    for (int64_t i = 0; i < tensor->numel(); ++i) data[i] = normal(random);
  }
  std::vector<int64_t> experts(c.num_experts);
  for (int64_t e = 0; e < c.num_experts; ++e) experts[e] = e;
  for (int64_t t = 0; t < c.tokens; ++t) {
    if (c.routing == Case::kAllToOneRank) {
      // Keep the order: the first k experts, which one rank holds.
    } else {
      std::shuffle(experts.begin(), experts.end(), random);
    }
    const bool padding = c.routing == Case::kNothing ||
                         (c.routing == Case::kPadding && t % 3 == 1) ||
                         (c.routing == Case::kOneRankIsEmpty && rank == 1);
    for (int64_t k = 0; k < c.top_k; ++k) {
      in.expert_TK.mutable_data_ptr<int64_t>()[t * c.top_k + k] = padding ? -1 : experts[k];
    }
  }
  in.x_TD = in.x_TD.to(c.type);
  in.grad_TD = in.grad_TD.to(c.type);
  return in;
}

struct Row {
  int source;
  int64_t token, choice;
};

// Rows of `rank` by brute force: expert by expert, source by source, token by token.
std::vector<Row> ExpectedRows(const Case& c, const std::vector<Inputs>& all, int rank,
                              std::vector<int32_t>& offsets) {
  const int64_t local = c.num_experts / c.ranks;
  std::vector<Row> rows;
  offsets = {0};
  for (int64_t expert = rank * local; expert < (rank + 1) * local; ++expert) {
    for (int source = 0; source < c.ranks; ++source) {
      for (int64_t t = 0; t < c.tokens; ++t) {
        for (int64_t k = 0; k < c.top_k; ++k) {
          if (all[source].expert_TK.const_data_ptr<int64_t>()[t * c.top_k + k] == expert) {
            rows.push_back({source, t, k});
          }
        }
      }
    }
    offsets.push_back(static_cast<int32_t>(rows.size()));
  }
  return rows;
}

// What the expert of a row makes of it: depends on the expert and the weight.
at::Tensor Expert(const at::Tensor& row, int64_t expert, double weight) {
  return (row.to(at::kFloat) * (weight * (1.0 + 0.25 * static_cast<double>(expert))))
      .to(row.scalar_type());
}

// residual (if defined) + sum over ranks of (sum over choices on that rank, float32, rounded to the
// type), float32, rounded.
at::Tensor ExpectedCombine(const Case& c, const Inputs& in, const at::Tensor& from_TD,
                           bool weighted, const at::Tensor& residual_TD) {
  const int64_t local = c.num_experts / c.ranks;
  at::Tensor out = at::zeros({c.tokens, c.hidden}, at::TensorOptions().dtype(c.type));
  for (int64_t t = 0; t < c.tokens; ++t) {
    at::Tensor total =
        residual_TD.defined() ? residual_TD[t].to(at::kFloat) : at::zeros({c.hidden}, at::kFloat);
    for (int rank = 0; rank < c.ranks; ++rank) {
      at::Tensor partial = at::zeros({c.hidden}, at::kFloat);
      for (int64_t k = 0; k < c.top_k; ++k) {
        const int64_t expert = in.expert_TK.const_data_ptr<int64_t>()[t * c.top_k + k];
        if (expert < 0 || expert / local != rank) continue;
        const double weight =
            weighted ? in.weight_TK.const_data_ptr<float>()[t * c.top_k + k] : 1.0;
        partial = partial + Expert(from_TD[t], expert, weight).to(at::kFloat);
      }
      total = total + partial.to(c.type).to(at::kFloat);
    }
    out[t].copy_(total);
  }
  return out;
}

void CheckRound(const Case& c, TokenDispatcher& dispatcher, int rank, int round) {
  std::vector<Inputs> all;
  for (int r = 0; r < c.ranks; ++r) all.push_back(MakeInputs(c, r, round));
  const Inputs& in = all[rank];
  const int64_t first_expert = rank * (c.num_experts / c.ranks);
  std::vector<int32_t> offsets;
  const std::vector<Row> expected = ExpectedRows(c, all, rank, offsets);
  const auto options = at::TensorOptions().dtype(c.type);
  at::Tensor rows = at::empty({dispatcher.MaxRows(c.tokens), c.hidden}, options);

  Arena saved("saved", 64, at::kCPU);
  Routing routing = dispatcher.Dispatch(in.x_TD, in.expert_TK, in.weight_TK, saved, rows);
  ASSERT_EQ(routing.max_rows, static_cast<int64_t>(expected.size()));
  const int32_t* offset = routing.expert_offset_L1.const_data_ptr<int32_t>();
  EXPECT_EQ(std::vector<int32_t>(offset, offset + routing.expert_offset_L1.numel()), offsets);
  std::vector<int64_t> expert_of_row(expected.size());
  at::Tensor outputs = at::empty_like(rows);
  for (size_t r = 0; r < expected.size(); ++r) {
    const Row& row = expected[r];
    const float weight =
        all[row.source].weight_TK.const_data_ptr<float>()[row.token * c.top_k + row.choice];
    ASSERT_TRUE(at::equal(rows[r], all[row.source].x_TD[row.token])) << "row " << r;
    ASSERT_EQ(routing.weight_R.const_data_ptr<float>()[r], weight) << "row " << r;
    expert_of_row[r] =
        first_expert +
        std::distance(offsets.begin(),
                      std::upper_bound(offsets.begin(), offsets.end(), static_cast<int32_t>(r))) -
        1;
    outputs[r].copy_(Expert(rows[r], expert_of_row[r], weight));
  }

  at::Tensor y = at::full({c.tokens, c.hidden}, 7, options);
  dispatcher.Combine(outputs, routing, in.grad_TD, y);
  EXPECT_TRUE(at::equal(y, ExpectedCombine(c, in, in.x_TD, true, in.grad_TD)));

  at::Tensor again = at::zeros_like(rows);
  dispatcher.Redispatch(in.x_TD, routing, again);
  EXPECT_TRUE(at::equal(again.narrow(0, 0, routing.max_rows), rows.narrow(0, 0, routing.max_rows)));
  // A layer that does not save the routing dispatches again, then sends gradients by the new one.
  if (round % 2 == 1) {
    again.zero_();
    routing = dispatcher.Dispatch(in.x_TD, in.expert_TK, in.weight_TK, saved, again);
    EXPECT_TRUE(
        at::equal(again.narrow(0, 0, routing.max_rows), rows.narrow(0, 0, routing.max_rows)));
  }

  at::Tensor grad_rows = at::empty_like(rows);
  dispatcher.DispatchGradient(in.grad_TD, routing, grad_rows);
  at::Tensor grad_weight_R = at::empty({routing.max_rows}, at::kFloat);
  for (size_t r = 0; r < expected.size(); ++r) {
    const Row& row = expected[r];
    ASSERT_TRUE(at::equal(grad_rows[r], all[row.source].grad_TD[row.token])) << "row " << r;
    outputs[r].copy_(Expert(grad_rows[r], expert_of_row[r], 1.0));
    grad_weight_R.mutable_data_ptr<float>()[r] =
        static_cast<float>(row.source * 1e6 + row.token * 1e2 + row.choice) + 0.5f;
  }
  at::Tensor grad_x = at::full({c.tokens, c.hidden}, 7, options);
  at::Tensor grad_weight = at::full({c.tokens, c.top_k}, 7, at::kFloat);
  dispatcher.CombineGradient(outputs, grad_weight_R, routing, grad_x, grad_weight);
  EXPECT_TRUE(at::equal(grad_x, ExpectedCombine(c, in, in.grad_TD, false, {})));
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t k = 0; k < c.top_k; ++k) {
      const bool padding = in.expert_TK.const_data_ptr<int64_t>()[t * c.top_k + k] < 0;
      EXPECT_EQ(grad_weight.const_data_ptr<float>()[t * c.top_k + k],
                padding ? 0.0f : static_cast<float>(rank * 1e6 + t * 1e2 + k) + 0.5f);
    }
  }
}

class WindowDispatcherTest : public ::testing::TestWithParam<Case> {};

TEST_P(WindowDispatcherTest, EqualsBruteForceToTheBit) {
  const Case c = GetParam();
  const std::string name = UniqueName("dispatch");
  RunRanks(c.ranks, [&](int rank) {
    const DispatchWindowShape shape = {c.ranks, c.tokens, c.hidden, c.top_k,
                                       static_cast<int64_t>(c10::elementSize(c.type))};
    ShmGroupOptions options;
    options.name = name;
    options.rank = rank;
    options.size = c.ranks;
    options.window_bytes = DispatchWindowLayout(shape).bytes;
    ShmWindow window(ShmGroup::Join(options));
    const auto dispatcher = MakeWindowDispatcher(window, c.num_experts, shape);
    // Several rounds reuse the window; the second has fewer tokens than it holds.
    for (int round = 0; round < 4; ++round) {
      Case now = c;
      if (round == 1) now.tokens = c.tokens / 2;
      CheckRound(now, *dispatcher, rank, round);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Routings, WindowDispatcherTest,
    ::testing::Values(
        Case{"Ep2Float32", 2, 8, 37, 4, 24, at::kFloat, Case::kRandom},
        Case{"Ep2Bfloat16", 2, 8, 37, 4, 300, at::kBFloat16, Case::kRandom},
        Case{"Ep4Float32", 4, 8, 37, 3, 24, at::kFloat, Case::kRandom},
        Case{"Ep4Bfloat16", 4, 16, 37, 4, 24, at::kBFloat16, Case::kRandom},
        Case{"AllTokensToOneExpert", 4, 8, 33, 1, 16, at::kFloat, Case::kAllToOneRank},
        Case{"AllTokensToOneRank", 2, 8, 33, 4, 16, at::kFloat, Case::kAllToOneRank},
        Case{"PaddingTokens", 4, 8, 40, 2, 16, at::kFloat, Case::kPadding},
        Case{"PaddingTokensBfloat16", 2, 4, 40, 2, 16, at::kBFloat16, Case::kPadding},
        Case{"OneRankHasOnlyPadding", 4, 8, 20, 2, 16, at::kFloat, Case::kOneRankIsEmpty},
        Case{"NothingIsRouted", 2, 4, 20, 2, 16, at::kFloat, Case::kNothing}),
    [](const auto& param_info) { return param_info.param.name; });

TEST(WindowDispatcherLayoutTest, PartsOfARegionDoNotOverlap) {
  const DispatchWindowLayout layout({4, 33, 20, 3, 2});
  for (int64_t owner = 0; owner < 4; ++owner) {
    std::vector<std::pair<int64_t, int64_t>> parts;
    const int64_t choices = 33 * 3 * 4, rows = 33 * 20 * 2;
    for (int64_t member = 0; member < 4; ++member) {
      for (int64_t part : {layout.expert, layout.weight, layout.back_weight}) {
        parts.emplace_back(layout.At(member, part), choices);
      }
      parts.emplace_back(layout.At(member, layout.count), 4);
      parts.emplace_back(layout.At(member, layout.back), rows);
      if (member != owner) parts.emplace_back(layout.Rows(owner, member), rows);
    }
    std::sort(parts.begin(), parts.end());
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(parts[i].first % 64, 0);
      EXPECT_LE(parts[i].first + parts[i].second,
                i + 1 < parts.size() ? parts[i + 1].first : layout.bytes);
    }
  }
}

}  // namespace
}  // namespace switchyard::trainer
