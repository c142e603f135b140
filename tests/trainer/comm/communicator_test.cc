#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "tests/trainer/support/multi_process.h"
#include "worker/trainer/comm/mesh_groups.h"
#include "worker/trainer/comm/shm_communicator.h"
#include "worker/trainer/comm/shm_window.h"

namespace switchyard::trainer {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::shared_ptr<ShmGroup> JoinGroup(const std::string& name, int rank, int size,
                                    int64_t staging_bytes) {
  ShmGroupOptions options;
  options.name = name;
  options.rank = rank;
  options.size = size;
  options.staging_bytes = staging_bytes;
  options.window_bytes = 4096;
  options.join_limit = std::chrono::seconds(20);
  options.wait_limit = std::chrono::seconds(20);
  return ShmGroup::Join(options);
}

// What rank r contributes: values whose float32 sum depends on the order of summation.
at::Tensor Contribution(int rank, int64_t numel, at::ScalarType type) {
  at::Tensor i = at::arange(numel, at::kDouble);
  at::Tensor values = (i * 0.37 + rank * 1.7).sin() * (rank % 2 == 0 ? 1e4 : 1e-3) + rank;
  return values.to(type);
}

// Sum over ranks in rank order in float32 (float64, int64), rounded once.
at::Tensor ExpectedSum(int ranks, int64_t numel, at::ScalarType type) {
  const at::ScalarType wide = type == at::kBFloat16 ? at::kFloat : type;
  at::Tensor sum = Contribution(0, numel, type).to(wide);
  for (int r = 1; r < ranks; ++r) sum = sum + Contribution(r, numel, type).to(wide);
  return sum.to(type);
}

constexpr at::ScalarType kSumTypes[] = {at::kFloat, at::kBFloat16, at::kDouble, at::kLong};

TEST(ShmCommunicatorTest, SumsAreTakenInRankOrderAndAreTheSameBytesOnEveryRank) {
  for (int ranks : {2, 3, 4}) {
    const std::string name = UniqueName("sum");
    RunRanks(ranks, [&](int rank) {
      ShmCommunicator comm(JoinGroup(name, rank, ranks, 64 << 10));
      for (at::ScalarType type : kSumTypes) {
        for (int64_t numel : {0, 1, 7, 5000, 100003}) {  // the last ones take several chunks
          at::Tensor tensor = Contribution(rank, numel, type);
          comm.AllReduce(tensor);
          EXPECT_TRUE(at::equal(tensor, ExpectedSum(ranks, numel, type))) << type << " " << numel;

          at::Tensor scattered = at::empty({numel}, at::TensorOptions().dtype(type));
          comm.ReduceScatter(Contribution(rank, numel * ranks, type), scattered);
          EXPECT_TRUE(at::equal(
              scattered, ExpectedSum(ranks, numel * ranks, type).narrow(0, rank * numel, numel)))
              << type << " " << numel;
        }
      }
    });
  }
}

TEST(ShmCommunicatorTest, ScattersAndGathersInPlace) {
  const std::string name = UniqueName("in-place");
  RunRanks(4, [&](int rank) {
    ShmCommunicator comm(JoinGroup(name, rank, 4, 16 << 10));
    const int64_t numel = 10000;
    at::Tensor flat = Contribution(rank, 4 * numel, at::kFloat);
    at::Tensor own = flat.narrow(0, rank * numel, numel);
    comm.ReduceScatter(flat, own);
    comm.AllGather(own, flat);
    EXPECT_TRUE(at::equal(flat, ExpectedSum(4, 4 * numel, at::kFloat)));
  });
}

TEST(ShmCommunicatorTest, BroadcastsGathersAndTakesTheMaximum) {
  const std::string name = UniqueName("broadcast");
  RunRanks(3, [&](int rank) {
    ShmCommunicator comm(JoinGroup(name, rank, 3, 4 << 10));
    at::Tensor tensor = Contribution(rank, 5000, at::kFloat);
    comm.Broadcast(tensor, 1);
    EXPECT_TRUE(at::equal(tensor, Contribution(1, 5000, at::kFloat)));

    at::Tensor all = at::empty({3, 5000}, at::kFloat);
    comm.AllGather(Contribution(rank, 5000, at::kFloat), all);
    for (int r = 0; r < 3; ++r) EXPECT_TRUE(at::equal(all[r], Contribution(r, 5000, at::kFloat)));

    at::Tensor largest = at::full({2}, rank == 1 ? 9 : rank, at::kLong);
    comm.AllReduceMax(largest);
    EXPECT_TRUE(at::equal(largest, at::full({2}, 9, at::kLong)));
  });
}

TEST(ShmCommunicatorTest, ManySmallOperationsInARowNeverMix) {
  const std::string name = UniqueName("many");
  RunRanks(4, [&](int rank) {
    ShmCommunicator comm(JoinGroup(name, rank, 4, 4 << 10));
    for (int i = 0; i < 2000; ++i) {
      at::Tensor value = at::full({3}, rank + i, at::kLong);
      comm.AllReduce(value);
      ASSERT_TRUE(at::equal(value, at::full({3}, 6 + 4 * i, at::kLong))) << i;
    }
  });
}

TEST(ShmWindowTest, WhatWasWrittenBeforeASignalIsSeenAfterTheWait) {
  const std::string name = UniqueName("window");
  RunRanks(3, [&](int rank) {
    ShmWindow window(JoinGroup(name, rank, 3, 4096));
    for (int64_t round = 1; round <= 1000; ++round) {
      for (int to = 0; to < 3; ++to) {
        if (to == rank) continue;
        reinterpret_cast<int64_t*>(window.peer(to))[rank] = round * 10 + rank;
        window.Signal(to, 5);
      }
      for (int from = 0; from < 3; ++from) {
        if (from == rank) continue;
        window.Wait(from, 5);
        ASSERT_EQ(reinterpret_cast<int64_t*>(window.peer(rank))[from], round * 10 + from);
        window.Signal(from, 6);  // read: it may be written again
      }
      for (int to = 0; to < 3; ++to) {
        if (to != rank) window.Wait(to, 6);
      }
    }
  });
}

TEST(ShmGroupTest, AKilledPeerIsNoticedWithinASecondByAllWhoWait) {
  const std::string name = UniqueName("killed");
  RankProcesses ranks(4, [&](int rank) {
    std::shared_ptr<ShmGroup> group = JoinGroup(name, rank, 4, 4096);
    ShmCommunicator comm(group);
    comm.Barrier();
    if (rank == 2) {
      pause();
    } else if (rank == 3) {
      EXPECT_THROW(group->Wait(2, 0), PeerLost);
    } else {
      EXPECT_THROW(comm.Barrier(), PeerLost);
    }
  });
  std::this_thread::sleep_for(milliseconds(500));
  const auto killed = steady_clock::now();
  ranks.Kill(2, SIGKILL);
  EXPECT_EQ(ranks.Wait(), (std::vector<int>{0, 0, 128 + SIGKILL, 0}));
  EXPECT_LT(steady_clock::now() - killed, std::chrono::seconds(1));
}

TEST(ShmGroupTest, ASilentPeerIsLostAtTheTimeLimit) {
  const std::string name = UniqueName("silent");
  RunRanks(2, [&](int rank) {
    ShmGroupOptions options;
    options.name = name;
    options.rank = rank;
    options.size = 2;
    options.wait_limit = milliseconds(300);
    std::shared_ptr<ShmGroup> group = ShmGroup::Join(options);
    if (rank == 0) {
      EXPECT_THROW(group->Wait(1, 0), PeerLost);
    } else {
      std::this_thread::sleep_for(milliseconds(1000));
    }
  });
}

TEST(ShmGroupTest, APeerThatDidItsPartAndEndedIsNotLost) {
  const std::string name = UniqueName("ended");
  RunRanks(2, [&](int rank) {
    std::shared_ptr<ShmGroup> group = JoinGroup(name, rank, 2, 4096);
    if (rank == 1) {
      group->Signal(0, 3);
    } else {
      std::this_thread::sleep_for(milliseconds(300));
      group->Wait(1, 3);
    }
  });
}

TEST(ShmGroupTest, JoiningEndsAtItsTimeLimitWhenARankIsMissing) {
  const std::string name = UniqueName("missing");
  ShmGroupOptions options;
  options.name = name;
  options.size = 2;
  options.join_limit = milliseconds(200);
  EXPECT_THROW(ShmGroup::Join(options), PeerLost);
  shm_unlink(("/" + name).c_str());  // as the agent does after a failed attempt
}

TEST(ShmGroupTest, TooLittleRoomIsAnErrorThatNamesTheRoom) {
  ShmGroupOptions options;
  options.name = UniqueName("room");
  options.window_bytes = int64_t{1} << 50;
  try {
    ShmGroup::Join(options);
    FAIL() << "a petabyte was found";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("/dev/shm"), std::string::npos) << error.what();
  }
  EXPECT_LT(shm_open(("/" + options.name).c_str(), O_RDWR, 0), 0)
      << "the failed segment was left behind";
}

TEST(MeshGroupsTest, RanksMeetInWorldEpAndEdpAndLeaveNoSegmentBehind) {
  const std::string token = NewRendezvousToken();
  const std::string job_uid = UniqueName("mesh");
  RunRanks(4, [&](int rank) {
    const Mesh mesh = *Mesh::Create(4, 2, 8);
    MeshGroupsOptions options;
    options.job_uid = job_uid;
    options.epoch = 7;
    options.token = token;
    options.rank = rank;
    options.window_bytes = 8192;
    MeshGroups groups = JoinMeshGroups(mesh, options);
    const auto sum_of_ranks = [rank](Communicator& comm) {
      at::Tensor value = at::full({1}, 1 << rank, at::kLong);
      comm.AllReduce(value);
      return *value.const_data_ptr<int64_t>();
    };
    EXPECT_EQ(sum_of_ranks(*groups.communicators.world), 0b1111);
    EXPECT_EQ(sum_of_ranks(*groups.communicators.ep), rank < 2 ? 0b0011 : 0b1100);
    EXPECT_EQ(sum_of_ranks(*groups.communicators.edp), rank % 2 == 0 ? 0b0101 : 0b1010);
    EXPECT_EQ(groups.window->size(), 2);
    for (const char* group : {"world", "ep0", "ep1", "edp0", "edp1"}) {
      const std::string segment = "/switchyard-" + job_uid + "-7-" + token + "-" + group;
      EXPECT_LT(shm_open(segment.c_str(), O_RDWR, 0), 0) << segment;
    }
  });
}

}  // namespace
}  // namespace switchyard::trainer
