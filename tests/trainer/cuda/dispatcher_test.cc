// Both dispatchers of GPUs against a brute force on the host, to the bit.
#include <ATen/TensorOperators.h>
#include <ATen/cuda/Sleep.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/mul.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <random>
#include <vector>

#include "common/model/cuda_dispatch_window.h"
#include "common/model/rank_memory.h"
#include "tests/trainer/cuda/gpu_ranks.h"
#include "worker/trainer/cuda/cuda_dispatcher.h"
#include "worker/trainer/cuda/cuda_ops.h"
#include "worker/trainer/cuda/nccl_dispatcher.h"

namespace switchyard::trainer {
namespace {

struct Case {
  const char* name;
  int64_t num_experts, tokens, top_k, hidden;
  enum { kUniform, kSkewed, kOneExpert, kOneRank, kPadding, kOneRankIsEmpty, kNothing } routing;
  int max_blocks = 0;
};

struct Inputs {
  at::Tensor x_TD, grad_TD, weight_TK, expert_TK;  // bfloat16, bfloat16, float32, int32
};

// The same on every rank, so that a rank can work out what all others send.
Inputs MakeInputs(const Case& c, int rank, int round) {
  std::mt19937 random(1000 * round + rank);
  std::normal_distribution<float> normal;
  Inputs in = {
      at::empty({c.tokens, c.hidden}, at::kFloat), at::empty({c.tokens, c.hidden}, at::kFloat),
      at::empty({c.tokens, c.top_k}, at::kFloat), at::empty({c.tokens, c.top_k}, at::kInt)};
  for (at::Tensor* tensor : {&in.x_TD, &in.grad_TD, &in.weight_TK}) {
    float* data = tensor->mutable_data_ptr<float>();
    for (int64_t i = 0; i < tensor->numel(); ++i) data[i] = normal(random);
  }
  in.x_TD = in.x_TD.to(at::kBFloat16);
  in.grad_TD = in.grad_TD.to(at::kBFloat16);
  std::vector<int32_t> experts(c.num_experts);
  for (int64_t e = 0; e < c.num_experts; ++e) experts[e] = static_cast<int32_t>(e);
  for (int64_t t = 0; t < c.tokens; ++t) {
    if (c.routing == Case::kSkewed) {
      // Low experts are far likelier: partial sorts by a random key that grows with the index.
      std::vector<float> key(c.num_experts);
      for (int64_t e = 0; e < c.num_experts; ++e) key[e] = std::abs(normal(random)) * (1.0f + e);
      std::sort(experts.begin(), experts.end(), [&](int a, int b) { return key[a] < key[b]; });
    } else if (c.routing != Case::kOneExpert && c.routing != Case::kOneRank) {
      std::shuffle(experts.begin(), experts.end(), random);
    }  // else the first k experts
    const bool padding = c.routing == Case::kNothing ||
                         (c.routing == Case::kPadding && t % 3 == 1) ||
                         (c.routing == Case::kOneRankIsEmpty && rank == 1);
    for (int64_t k = 0; k < c.top_k; ++k) {
      in.expert_TK.mutable_data_ptr<int32_t>()[t * c.top_k + k] = padding ? -1 : experts[k];
    }
  }
  return in;
}

struct Row {
  int source;
  int64_t token, choice;
};

// Rows of `rank` by brute force: by expert, source, token.
std::vector<Row> ExpectedRows(const Case& c, const std::vector<Inputs>& all, int rank,
                              std::vector<int32_t>& offsets) {
  const auto ranks = static_cast<int64_t>(all.size()), local = c.num_experts / ranks;
  std::vector<std::vector<Row>> of_expert(local);
  for (int source = 0; source < ranks; ++source) {
    const int32_t* expert = all[source].expert_TK.const_data_ptr<int32_t>();
    for (int64_t i = 0; i < c.tokens * c.top_k; ++i) {
      if (expert[i] >= 0 && expert[i] / local == rank)
        of_expert[expert[i] % local].push_back({source, i / c.top_k, i % c.top_k});
    }
  }
  std::vector<Row> rows;
  offsets = {0};
  for (const std::vector<Row>& some : of_expert) {
    rows.insert(rows.end(), some.begin(), some.end());
    offsets.push_back(static_cast<int32_t>(rows.size()));
  }
  return rows;
}

// residual (if defined) + sum over ranks of bfloat16(sum over choices on that rank of the row times
// its weight, each rounded to bfloat16).
at::Tensor ExpectedCombine(const Case& c, int ranks, const Inputs& in, const at::Tensor& from_TD,
                           const at::Tensor& residual_TD = {}) {
  const int64_t local = c.num_experts / ranks;
  at::Tensor out = at::empty({c.tokens, c.hidden}, at::kBFloat16);
  const auto* from = from_TD.const_data_ptr<at::BFloat16>();
  auto* to = out.mutable_data_ptr<at::BFloat16>();
  for (int64_t t = 0; t < c.tokens; ++t) {
    std::vector<float> total(c.hidden, 0.0f);
    for (int64_t d = 0; residual_TD.defined() && d < c.hidden; ++d)
      total[d] = residual_TD.const_data_ptr<at::BFloat16>()[t * c.hidden + d];
    for (int rank = 0; rank < ranks; ++rank) {
      std::vector<float> part(c.hidden, 0.0f);
      for (int64_t k = 0; k < c.top_k; ++k) {
        const int64_t expert = in.expert_TK.const_data_ptr<int32_t>()[t * c.top_k + k];
        if (expert < 0 || expert / local != rank) continue;
        const float weight = in.weight_TK.const_data_ptr<float>()[t * c.top_k + k];
        for (int64_t d = 0; d < c.hidden; ++d)
          part[d] += at::BFloat16(static_cast<float>(from[t * c.hidden + d]) * weight);
      }
      for (int64_t d = 0; d < c.hidden; ++d) total[d] += at::BFloat16(part[d]);
    }
    for (int64_t d = 0; d < c.hidden; ++d) to[t * c.hidden + d] = total[d];
  }
  return out;
}

at::Tensor Weighted(const at::Tensor& rows_RD, const Routing& routing) {
  return at::mul(rows_RD.to(at::kFloat), routing.weight_R.unsqueeze(1)).to(at::kBFloat16);
}

// What one round left on the device.
struct Round {
  Inputs in;
  Routing routing;
  at::Tensor rows, rows_again, y, grad_rows, grad_x, grad_weight;
};

// Enqueues a round; nothing here waits for the device.
// With `beside` the gradients go back beside other work.
// With `dispatch_again` what Dispatch saved is not used: it is called again, with that arena.
Round Enqueue(const Case& c, TokenDispatcher& dispatcher, Inputs in, Arena& saved,
              ops::DeviceOps* beside = nullptr, Arena* dispatch_again = nullptr) {
  const auto options = in.x_TD.options();
  const int64_t max_rows = dispatcher.MaxRows(c.tokens);
  Round r;
  r.in = std::move(in);
  r.rows = at::full({max_rows, c.hidden}, 7, options);
  r.routing = dispatcher.Dispatch(r.in.x_TD, r.in.expert_TK, r.in.weight_TK, saved, r.rows);
  r.y = at::full({c.tokens, c.hidden}, 7, options);
  dispatcher.Combine(Weighted(r.rows, r.routing), r.routing, r.in.grad_TD, r.y);
  r.rows_again = at::full({max_rows, c.hidden}, 7, options);
  if (dispatch_again != nullptr) {  // a layer that did not save its routing
    r.routing = dispatcher.Dispatch(r.in.x_TD, r.in.expert_TK, r.in.weight_TK, *dispatch_again,
                                    r.rows_again);
  } else {
    dispatcher.Redispatch(r.in.x_TD, r.routing, r.rows_again);
  }
  r.grad_rows = at::full({max_rows, c.hidden}, 7, options);
  dispatcher.DispatchGradient(r.in.grad_TD, r.routing, r.grad_rows);
  r.grad_x = at::full({c.tokens, c.hidden}, 7, options);
  r.grad_weight = at::full({c.tokens, c.top_k}, 7, options.dtype(at::kFloat));
  const at::Tensor sums = Weighted(r.grad_rows, r.routing), grad_R = at::mul(r.routing.weight_R, 2);
  const auto back = [&] {
    dispatcher.CombineGradient(sums, grad_R, r.routing, r.grad_x, r.grad_weight);
  };
  if (beside == nullptr) {
    back();
  } else {
    beside->MarkBeside();
    beside->Beside(back);
    dispatcher.Redispatch(r.in.x_TD, r.routing, r.rows_again);  // beside it
    beside->JoinBeside();
  }
  return r;
}

void Check(const Case& c, const std::vector<Inputs>& all, int rank, const Round& r) {
  std::vector<int32_t> offsets;
  const std::vector<Row> expected = ExpectedRows(c, all, rank, offsets);
  const at::Tensor offset = r.routing.expert_offset_L1.cpu();
  ASSERT_EQ(std::vector<int32_t>(offset.const_data_ptr<int32_t>(),
                                 offset.const_data_ptr<int32_t>() + offset.numel()),
            offsets);
  const at::Tensor weight = r.routing.weight_R.cpu(), rows = r.rows.cpu(),
                   grad_rows = r.grad_rows.cpu();
  const int64_t bytes = c.hidden * 2;
  const auto same = [&](const at::Tensor& a, int64_t row, const at::Tensor& b, int64_t token) {
    return std::memcmp(static_cast<const char*>(a.const_data_ptr()) + row * bytes,
                       static_cast<const char*>(b.const_data_ptr()) + token * bytes, bytes) == 0;
  };
  for (size_t i = 0; i < expected.size(); ++i) {
    const Row& row = expected[i];
    const Inputs& from = all[row.source];
    const auto at = static_cast<int64_t>(i);
    ASSERT_TRUE(same(rows, at, from.x_TD, row.token)) << "row " << i;
    ASSERT_TRUE(same(grad_rows, at, from.grad_TD, row.token)) << "row " << i;
    ASSERT_EQ(weight.const_data_ptr<float>()[i],
              from.weight_TK.const_data_ptr<float>()[row.token * c.top_k + row.choice]);
  }
  const auto count = static_cast<int64_t>(expected.size());
  EXPECT_TRUE(at::equal(r.rows_again.narrow(0, 0, count), r.rows.narrow(0, 0, count)));
  const int ranks = static_cast<int>(all.size());
  EXPECT_TRUE(at::equal(r.y.cpu(),
                        ExpectedCombine(c, ranks, all[rank], all[rank].x_TD, all[rank].grad_TD)));
  EXPECT_TRUE(at::equal(r.grad_x.cpu(), ExpectedCombine(c, ranks, all[rank], all[rank].grad_TD)));
  EXPECT_TRUE(at::equal(r.grad_weight.cpu(),
                        at::mul(all[rank].weight_TK, 2).masked_fill(all[rank].expert_TK < 0, 0)));
}

DispatchWindowShape Shape(const Case& c, int ranks) {
  return {ranks, c.tokens, c.hidden, c.top_k, 2};
}

int64_t SavedBytes(const Case& c, int ranks) {
  return ExchangeRoutingBytes(Shape(c, ranks), c.num_experts, c.tokens);
}

std::unique_ptr<ExchangeDispatcher> Make(bool window, CudaMeshGroups& groups, const Case& c,
                                         int ranks) {
  const ExchangeBlocks blocks = {.max_blocks = c.max_blocks};
  return window ? MakeCudaDispatcher(groups, c.num_experts, Shape(c, ranks), blocks)
                : MakeNcclDispatcher(*groups.ep, c.num_experts, Shape(c, ranks), blocks);
}

Inputs OnGpu(const Inputs& in, at::Device device) {
  return {in.x_TD.to(device), in.grad_TD.to(device), in.weight_TK.to(device),
          in.expert_TK.to(device)};
}

constexpr int kInputSets = 4;

// Rounds follow each other without the host waiting; ranks are delayed at random.
void CheckCase(const Case& c, bool window, int rank, int ranks, int rounds,
               CudaMeshGroups& groups) {
  SCOPED_TRACE(c.name);
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(rank));
  if (window) {
    groups.window.reset();
    groups.window = PeerWindow::Map(*groups.ep, CudaDispatchWindowLayout(Shape(c, ranks)).bytes,
                                    &groups.why_no_window);
    ASSERT_NE(groups.window, nullptr) << groups.why_no_window;
  }
  const auto dispatcher = Make(window, groups, c, ranks);
  std::vector<Case> cases(kInputSets, c);
  cases[1].tokens = c.tokens / 2;  // fewer than the window holds
  std::vector<std::vector<Inputs>> inputs(kInputSets);
  std::vector<Inputs> own;
  for (int set = 0; set < kInputSets; ++set) {
    for (int r = 0; r < ranks; ++r) inputs[set].push_back(MakeInputs(cases[set], r, set));
    own.push_back(OnGpu(inputs[set][rank], device));
  }
  Arena saved("saved", rounds * SavedBytes(c, ranks), device);
  Arena again("again", rounds * SavedBytes(c, ranks), device);
  std::vector<Round> done;
  const std::unique_ptr<ops::DeviceOps> operations = cuda::MakeCudaOps({});
  std::mt19937 random(rank);
  c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR);
  for (int round = 0; round < rounds; ++round) {
    if (random() % 3 == 0) at::cuda::sleep(random() % 400000);
    const int set = round % kInputSets;
    const int64_t before = saved.used();
    done.push_back(Enqueue(cases[set], *dispatcher, own[set], saved,
                           c.max_blocks > 0 ? operations.get() : nullptr,
                           round % 2 == 1 ? &again : nullptr));
    EXPECT_EQ(saved.used() - before, SavedBytes(cases[set], ranks));
  }
  c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  groups.Check();
  for (int round = 0; round < rounds && !::testing::Test::HasFailure(); ++round) {
    const int set = round % kInputSets;
    SCOPED_TRACE(round);
    Check(cases[set], inputs[set], rank, done[round]);
  }
}

const Case kCases[] = {{"Uniform", 32, 700, 8, 512, Case::kUniform},
                       {"WideRows", 16, 130, 4, 2056, Case::kUniform},
                       {"NarrowRows", 16, 300, 4, 8, Case::kUniform},
                       {"Skewed", 32, 500, 8, 256, Case::kSkewed},
                       {"AllTokensToOneExpert", 8, 300, 1, 256, Case::kOneExpert},
                       {"AllTokensToOneRank", 16, 300, 4, 256, Case::kOneRank},
                       {"PaddingTokens", 16, 300, 4, 256, Case::kPadding},
                       {"OneRankHasOnlyPadding", 16, 200, 4, 256, Case::kOneRankIsEmpty},
                       {"NothingIsRouted", 8, 60, 2, 256, Case::kNothing},
                       {"MoreChoicesThanLocalExperts", 8, 200, 6, 256, Case::kUniform},
                       {"FewBlocks", 32, 700, 8, 512, Case::kUniform, 6}};

class CudaDispatcherTest : public ::testing::TestWithParam<bool> {};

TEST_P(CudaDispatcherTest, EqualsBruteForceToTheBitForEveryRouting) {
  SWITCHYARD_REQUIRE_GPUS(2);
  const bool window = GetParam();
  for (int ranks = 2; ranks <= std::min(CountGpus(), 4); ranks *= 2) {
    SharedId id;
    RunRanks(ranks, [&](int rank) {
      CudaMeshGroups groups = JoinOnGpu(id, rank, ranks, ranks, 8, 0);
      for (const Case& c : kCases) CheckCase(c, window, rank, ranks, 8, groups);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Dispatchers, CudaDispatcherTest, ::testing::Bool(),
                         [](const auto& of) { return of.param ? "OverTheWindow" : "OverNccl"; });

TEST(CudaWindowDispatcherTest, FiftyRoundsFollowEachOtherWithoutTheHost) {
  SWITCHYARD_REQUIRE_GPUS(2);
  SharedId id;
  RunRanks(2, [&](int rank) {
    CudaMeshGroups groups = JoinOnGpu(id, rank, 2, 2, 8, 0);
    CheckCase({"Fifty", 128, 1500, 8, 1024, Case::kUniform}, /*window=*/true, rank, 2, 50, groups);
  });
}

// Counters and flags live on the device, so a replay is a round of its own.
TEST(CudaWindowDispatcherTest, ACapturedRoundCanBeReplayed) {
  SWITCHYARD_REQUIRE_GPUS(2);
  SharedId id;
  RunRanks(2, [&](int rank) {
    const Case c = {"Graph", 32, 600, 4, 512, Case::kUniform};
    CudaMeshGroups groups =
        JoinOnGpu(id, rank, 2, 2, 32, CudaDispatchWindowLayout(Shape(c, 2)).bytes);
    const auto dispatcher = Make(/*window=*/true, groups, c, 2);
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(rank));
    Arena saved("saved", SavedBytes(c, 2), device);
    Inputs in = OnGpu(MakeInputs(c, rank, 0), device);
    at::Tensor rows = at::full({dispatcher->MaxRows(c.tokens), c.hidden}, 7, in.x_TD.options());
    at::Tensor y = at::empty_like(in.x_TD);
    const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool();
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    {
      const c10::cuda::CUDAStreamGuard guard(stream);
      ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
      const Routing routing =
          dispatcher->Dispatch(in.x_TD, in.expert_TK, in.weight_TK, saved, rows);
      dispatcher->Combine(rows, routing, in.x_TD, y);
      ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    }
    ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
    for (int round = 0; round < kInputSets; ++round) {
      const Inputs host = MakeInputs(c, rank, round);
      in.x_TD.copy_(host.x_TD);
      in.expert_TK.copy_(host.expert_TK);
      y.fill_(7);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      groups.Check();
      Inputs plain = host;
      plain.weight_TK = at::full_like(host.weight_TK, 1);
      EXPECT_TRUE(at::equal(y.cpu(), ExpectedCombine(c, 2, plain, host.x_TD, host.x_TD))) << round;
    }
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
  });
}

TEST(CudaWindowDispatcherTest, AKilledPeerEndsInPeerLost) {
  SWITCHYARD_REQUIRE_GPUS(2);
  constexpr auto kLimit = std::chrono::seconds(3);
  const Case c = {"Killed", 16, 600, 4, 512, Case::kUniform};
  SharedId id;
  RankProcesses processes(2, [&](int rank) {
    const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(rank));
    CudaMeshGroups groups =
        JoinOnGpu(id, rank, 2, 2, 16, CudaDispatchWindowLayout(Shape(c, 2)).bytes, kLimit);
    const auto dispatcher = Make(/*window=*/true, groups, c, 2);
    const Inputs in = OnGpu(MakeInputs(c, rank, 0), device);
    Arena saved("saved", SavedBytes(c, 2), device);
    const auto start = std::chrono::steady_clock::now();
    try {
      for (int i = 0; std::chrono::steady_clock::now() - start < 4 * kLimit; ++i) {
        if (rank == 1 && i == 5) raise(SIGKILL);
        saved.Reset();
        const Round round = Enqueue(c, *dispatcher, in, saved);
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        groups.Check();
      }
      ADD_FAILURE() << "the lost peer was not noticed";
    } catch (const PeerLost& lost) {
      EXPECT_LT(std::chrono::steady_clock::now() - start, 3 * kLimit);
      EXPECT_NE(std::string(lost.what()).find("rank 1 of the expert-parallel group did not send"),
                std::string::npos)
          << lost.what();
      std::printf("rank %d: PeerLost: %s\n", rank, lost.what());
    }
  });
  EXPECT_EQ(processes.Wait(std::chrono::seconds(60)), (std::vector<int>{0, 128 + SIGKILL}));
}

TEST(CudaDispatchWindowLayoutTest, PartsOfARegionDoNotOverlap) {
  const CudaDispatchWindowLayout layout({4, 33, 1032, 3, 2});
  for (int64_t owner = 0; owner < 4; ++owner) {
    std::vector<std::pair<int64_t, int64_t>> parts = {{0, CudaDispatchWindowLayout::kHeader}};
    const int64_t choices = 33 * 3 * 4, rows = 33 * 1032 * 2;
    for (int64_t member = 0; member < 4; ++member) {
      parts.emplace_back(layout.At(member, 0), layout.ready);
      parts.emplace_back(layout.At(member, layout.ready), 4);
      for (int64_t part : {layout.choice, layout.weight, layout.back_weight})
        parts.emplace_back(layout.At(member, part), choices);
      parts.emplace_back(layout.At(member, layout.row_flag), 5 * 4);
      parts.emplace_back(layout.At(member, layout.back_flag), 2 * 9 * 4);
      if (member == owner) continue;
      parts.emplace_back(layout.Rows(owner, member), rows);
      parts.emplace_back(layout.Back(owner, member), rows);
    }
    std::sort(parts.begin(), parts.end());
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(parts[i].first % 128, 0);
      EXPECT_LE(parts[i].first + parts[i].second,
                i + 1 < parts.size() ? parts[i + 1].first : layout.bytes);
    }
  }
}

}  // namespace
}  // namespace switchyard::trainer
