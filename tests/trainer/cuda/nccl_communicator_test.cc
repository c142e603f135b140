#include "worker/trainer/cuda/nccl_communicator.h"

#include <ATen/TensorIndexing.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/trainer/cuda/gpu_ranks.h"

namespace switchyard::trainer {
namespace {

using std::chrono::steady_clock;

// Small integers: sums are exact in every type, so any order gives them.
at::Tensor Values(int rank, int64_t n, at::ScalarType type) {
  return ((at::arange(n, at::kLong) * (rank + 3) + rank) % 11 - 5).to(type);
}

at::Tensor OnGpu(const at::Tensor& host, int rank) {
  return host.to(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(rank)));
}

void CheckCollectives(Communicator& group, const std::vector<int>& members, int device) {
  const int size = group.size(), me = group.rank();
  ASSERT_EQ(size, static_cast<int>(members.size()));
  for (at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble, at::kLong}) {
    for (int64_t n : {int64_t{1}, int64_t{1000}, int64_t{300000}}) {
      std::vector<at::Tensor> all, wide;
      for (int member : members) {
        all.push_back(Values(member, n, type));
        wide.push_back(Values(member, size * n, type));
      }
      at::Tensor sum = OnGpu(all[me], device);
      group.AllReduce(sum);
      EXPECT_TRUE(at::equal(sum.cpu(), at::stack(all).sum(0).to(type))) << n;

      at::Tensor part = at::empty({n}, sum.options());
      group.ReduceScatter(OnGpu(wide[me], device), part);
      const at::Tensor wide_sum = at::stack(wide).sum(0).to(type);
      EXPECT_TRUE(at::equal(part.cpu(), wide_sum.narrow(0, me * n, n))) << n;
      at::Tensor in_place = OnGpu(wide[me], device);
      group.ReduceScatter(in_place, in_place.narrow(0, me * n, n));
      EXPECT_TRUE(at::equal(in_place.narrow(0, me * n, n).cpu(), wide_sum.narrow(0, me * n, n)));

      at::Tensor gathered = at::full({size, n}, 7, sum.options());
      group.AllGather(OnGpu(all[me], device), gathered);
      EXPECT_TRUE(at::equal(gathered.cpu(), at::stack(all))) << n;
      at::Tensor own_place = at::full({size, n}, 7, sum.options());
      own_place[me].copy_(all[me]);
      group.AllGather(own_place[me], own_place);
      EXPECT_TRUE(at::equal(own_place.cpu(), at::stack(all))) << n;

      at::Tensor cast = OnGpu(all[me], device);
      group.Broadcast(cast, size - 1);
      EXPECT_TRUE(at::equal(cast.cpu(), all[size - 1])) << n;
      if (type == at::kLong || type == at::kDouble) {
        at::Tensor most = OnGpu(all[me], device);
        group.AllReduceMax(most);
        EXPECT_TRUE(at::equal(most.cpu(), at::stack(all).amax(0))) << n;
      }
    }
  }
  // bfloat16 that must be rounded: near the sum, and the same on every rank.
  at::Tensor rounded = OnGpu((Values(members[me], 4096, at::kFloat) / 3).to(at::kBFloat16), device);
  group.AllReduce(rounded);
  std::vector<at::Tensor> exact;
  for (int member : members) exact.push_back(Values(member, 4096, at::kFloat) / 3);
  EXPECT_TRUE(at::allclose(rounded.cpu().to(at::kFloat), at::stack(exact).sum(0), 0.02, 0.05));
  at::Tensor everyones = at::empty({size, 4096}, rounded.options());
  group.AllGather(rounded, everyones);
  for (int r = 0; r < size; ++r) EXPECT_TRUE(at::equal(everyones[r], rounded)) << r;
  group.Barrier();
}

TEST(NcclCommunicatorTest, CollectivesOfEveryGroupEqualSumsOnTheHost) {
  SWITCHYARD_REQUIRE_GPUS(2);
  const int ranks = std::min(CountGpus(), 8) / 2 * 2;
  SharedId id;
  RunRanks(ranks, [&](int rank) {
    // Groups of two, and for four GPUs or more also their counterparts.
    CudaMeshGroups groups = JoinOnGpu(id, rank, ranks, 2, 8, 0);
    const Mesh mesh = *Mesh::Create(ranks, 2, 8);
    std::vector<int> world(ranks);
    for (int r = 0; r < ranks; ++r) world[r] = r;
    CheckCollectives(*groups.communicators.world, world, rank);
    CheckCollectives(*groups.communicators.ep, mesh.EpGroup(rank), rank);
    if (ranks > 2) CheckCollectives(*groups.communicators.edp, mesh.EdpGroup(rank), rank);
  });
}

TEST(NcclCommunicatorTest, AnIdThatIsNoneIsRefused) {
  EXPECT_THROW(NcclSession::Join({.rendezvous_id = "0123", .size = 2}), std::invalid_argument);
}

// Rank 1 is killed while rank 0 goes on: rank 0 must end with PeerLost soon after the limit.
void ExpectPeerLost(const char* text, const std::function<void(CudaMeshGroups&, int rank)>& step) {
  constexpr auto kLimit = std::chrono::seconds(3);
  SharedId id;
  RankProcesses processes(2, [&](int rank) {
    CudaMeshGroups groups = JoinOnGpu(id, rank, 2, 2, 8, 1 << 20, kLimit);
    const auto start = steady_clock::now();
    try {
      for (int i = 0; steady_clock::now() - start < 4 * kLimit; ++i) {
        if (rank == 1 && i == 5) raise(SIGKILL);
        step(groups, rank);
      }
      ADD_FAILURE() << "the lost peer was not noticed";
    } catch (const PeerLost& lost) {
      EXPECT_LT(steady_clock::now() - start, 3 * kLimit);
      EXPECT_NE(std::string(lost.what()).find(text), std::string::npos) << lost.what();
      std::printf("rank %d: PeerLost: %s\n", rank, lost.what());
    }
  });
  EXPECT_EQ(processes.Wait(std::chrono::seconds(60)), (std::vector<int>{0, 128 + SIGKILL}));
}

TEST(NcclCommunicatorTest, AKilledPeerEndsACollectiveThatTheHostWaitsFor) {
  SWITCHYARD_REQUIRE_GPUS(2);
  ExpectPeerLost("all_reduce of 1000 Float (expert-parallel group) has not finished",
                 [](CudaMeshGroups& groups, int rank) {
                   groups.communicators.ep->AllReduce(OnGpu(Values(rank, 1000, at::kFloat), rank));
                   cudaDeviceSynchronize();
                   groups.Check();
                 });
}

TEST(NcclCommunicatorTest, AKilledPeerEndsABarrier) {
  SWITCHYARD_REQUIRE_GPUS(2);
  ExpectPeerLost("barrier (world group)",
                 [](CudaMeshGroups& groups, int) { groups.communicators.world->Barrier(); });
}

TEST(NcclCommunicatorTest, APeerThatNeverJoinsEndsInPeerLost) {
  SWITCHYARD_REQUIRE_GPUS(1);
  SharedId id;
  RunRanks(1, [&](int rank) {
    const auto start = steady_clock::now();
    EXPECT_THROW(JoinOnGpu(id, rank, 2, 1, 8, 0, std::chrono::seconds(3)), PeerLost);
    EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(20));
  });
}

}  // namespace
}  // namespace switchyard::trainer
