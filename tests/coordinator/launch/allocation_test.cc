// Jobs on nodes that a cluster lends for one attempt, with a cluster that does what the test says.
#include <gmock/gmock.h>

#include <algorithm>

#include "coordinator/launch/node_allocator.h"
#include "tests/coordinator/support/coordinator_fixture.h"
#include "tests/coordinator/support/scripted_agent.h"

namespace switchyard::coordinator {
namespace {

using ::testing::HasSubstr;

// Two nodes of two slots. An allocation waits until `start`, then scripted agents run on its nodes.
class FakeCluster final : public NodeAllocator {
 public:
  std::vector<PlannerSlot> Offer() const override {
    std::vector<PlannerSlot> slots;
    for (int node = 0; node < 2; ++node) {
      for (int slot = 0; slot < 2; ++slot) {
        slots.push_back(
            {std::to_string(node), slot, "cpu", "lent CPU", int64_t{4} << 30, "one", 4, 2});
      }
    }
    return slots;
  }
  void Want(const std::string&, std::vector<Allocation> allocations) override {
    absl::MutexLock lock(&mutex_);
    wanted_ = std::move(allocations);
    for (const Allocation& allocation : wanted_) {
      Seen& seen = seen_[allocation.attempt];
      if (!allocation.keep && seen.status.state != AllocationState::kEnded) {
        ended_by_request_.push_back(allocation.attempt.second);
        EndLocked(seen, "", "ended as asked");
      }
      if (!allocation.keep || seen.status.state != AllocationState::kUnknown) continue;
      seen.status = {AllocationState::kPending, "", "job 7 waits (Resources)"};
      seen.allocation = allocation;
    }
  }
  AllocationStatus Look(const AttemptKey& attempt) const override {
    absl::MutexLock lock(&mutex_);
    const auto it = seen_.find(attempt);
    return it == seen_.end() ? AllocationStatus() : it->second.status;
  }

  // The allocation of `epoch` begins to run; the first `agents` nodes have one.
  void Start(const std::string& address, int64_t epoch, const AgentScript& script, int agents = 9) {
    absl::MutexLock lock(&mutex_);
    for (auto& [key, seen] : seen_) {
      if (key.second != epoch) continue;
      seen.status = {AllocationState::kRunning, "", "job 7 runs on n[1-2]"};
      AgentScript own = script;
      own.allocation = AllocationName(key);
      for (int i = 0; i < std::min(agents, seen.allocation.nodes); ++i) {
        seen.agents.push_back(
            std::make_unique<ScriptedAgent>(address, AllocatedNodeName(key, i), own));
      }
    }
  }
  // Its agents die and others dial in in their names.
  void Restart(const std::string& address, int64_t epoch, const AgentScript& script) {
    {
      absl::MutexLock lock(&mutex_);
      for (auto& [key, seen] : seen_) {
        if (key.second == epoch) seen.agents.clear();
      }
    }
    Start(address, epoch, script);
  }
  void End(int64_t epoch, const std::string& code, const std::string& detail) {
    absl::MutexLock lock(&mutex_);
    for (auto& [key, seen] : seen_) {
      if (key.second == epoch) EndLocked(seen, code, detail);
    }
  }
  // Agents get SIGTERM and the time to tell, as from a cluster that ends an allocation.
  void Terminate(int64_t epoch, const std::string& code, const std::string& detail) {
    absl::MutexLock lock(&mutex_);
    for (auto& [key, seen] : seen_) {
      if (key.second != epoch) continue;
      for (auto& agent : seen.agents) agent->Terminate();
      seen.status = {AllocationState::kEnded, code, detail};
    }
  }
  bool Knows(int64_t epoch) const {
    absl::MutexLock lock(&mutex_);
    return std::any_of(seen_.begin(), seen_.end(),
                       [&](const auto& entry) { return entry.first.second == epoch; });
  }
  int AgentsThatLeft() {
    absl::MutexLock lock(&mutex_);
    int left = 0;
    for (auto& [key, seen] : seen_) {
      for (auto& agent : seen.agents) left += agent->left();
    }
    return left;
  }
  std::vector<int64_t> ended_by_request() const {
    absl::MutexLock lock(&mutex_);
    return ended_by_request_;
  }
  Allocation first() const {
    absl::MutexLock lock(&mutex_);
    return seen_.empty() ? Allocation() : seen_.begin()->second.allocation;
  }

 private:
  struct Seen {
    AllocationStatus status;
    Allocation allocation;
    std::vector<std::unique_ptr<ScriptedAgent>> agents;
  };
  static void EndLocked(Seen& seen, const std::string& code, const std::string& detail) {
    seen.agents.clear();
    seen.status = {AllocationState::kEnded, code, detail};
  }

  mutable absl::Mutex mutex_;
  std::vector<Allocation> wanted_;
  std::map<AttemptKey, Seen> seen_;
  std::vector<int64_t> ended_by_request_;
};

class AllocationTest : public CoordinatorFixture {
 protected:
  void SetUp() override {
    allocator_ = &cluster_;
    CoordinatorFixture::SetUp();
  }
  void Start(int64_t epoch, const AgentScript& script = {}, int agents = 9) {
    ASSERT_TRUE(Wait([&] { return cluster_.Knows(epoch); }));
    cluster_.Start(server_->address(), epoch, script, agents);
  }
  void Desire(grpc::Status (v1::JobService::Stub::*method)(grpc::ClientContext*,
                                                           const v1::CancelJobRequest&, v1::Job*),
              const std::string& name) {
    grpc::ClientContext context;
    v1::CancelJobRequest request;
    request.set_name(name);
    v1::Job job;
    ASSERT_TRUE((jobs_.get()->*method)(&context, request, &job).ok());
  }
  FakeCluster cluster_;
};

TEST_F(AllocationTest, AJobWaitsForItsNodesRunsOnThemAndGivesThemBack) {
  const v1::Job job = Create(Request("lent", /*ranks=*/4));
  ASSERT_TRUE(Wait([&] { return Get(job.name()).reason().code() == "WAITING_FOR_CLUSTER"; }));
  EXPECT_EQ(Get(job.name()).state(), v1::JOB_STATE_RESERVED);
  EXPECT_EQ(Get(job.name()).reason().message(), "job 7 waits (Resources)");
  EXPECT_EQ(cluster_.first().nodes, 2);
  EXPECT_EQ(cluster_.first().slots_per_node, 2);
  EXPECT_EQ(cluster_.first().job, job.name());
  // The cluster is full: the next one waits for it.
  const v1::Job next = Create(Request("next"));
  Start(1);
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(Get(job.name()).attempts(0).placements(3).node(), job.uid() + "-e1-1");
  ASSERT_TRUE(Wait([&] { return cluster_.AgentsThatLeft() == 2; }));
  EXPECT_TRUE(WaitForNodes(0));
  ASSERT_TRUE(Wait([&] { return Get(next.name()).state() == v1::JOB_STATE_RESERVED; }));
  EXPECT_THAT(cluster_.ended_by_request(), ::testing::IsEmpty());
}

TEST_F(AllocationTest, WhatHasNotBegunIsTakenBackWhenTheJobIsCancelled) {
  const v1::Job job = Create(Request("early"));
  ASSERT_TRUE(Wait([&] { return cluster_.Knows(1); }));
  Desire(&v1::JobService::Stub::CancelJob, job.name());
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_CANCELLED));
  EXPECT_THAT(cluster_.ended_by_request(), ::testing::ElementsAre(1));
}

TEST_F(AllocationTest, APreemptedAttemptGoesOnInANewAllocationFromItsCheckpoint) {
  AgentScript held;
  held.hold_before_step = 4;
  const v1::Job job = Create(Request("taken"));
  Start(1, held);
  ASSERT_TRUE(Wait([&] { return Get(job.name()).progress().checkpoint_step() == 2; }));
  cluster_.End(1, "PREEMPTED", "job 7 was preempted");
  Start(2);
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_SUCCEEDED));
  const v1::Job done = Get(job.name());
  ASSERT_EQ(done.attempts_size(), 2);
  EXPECT_EQ(done.attempts(0).outcome().code(), "PREEMPTED");
  EXPECT_THAT(done.attempts(0).outcome().message(), HasSubstr("job 7 was preempted"));
  EXPECT_EQ(done.attempts(1).resumed_from_step(), 2);
}

// A cluster may start the agent of a node that it took away once more before it says so.
TEST_F(AllocationTest, AnAgentThatIsBackBeforeItsClusterSaysWhyWaitsForTheReason) {
  AgentScript held;
  held.hold_before_step = 4;
  const v1::Job job = Create(Request("replaced"));
  Start(1, held);
  ASSERT_TRUE(Wait([&] { return Get(job.name()).progress().checkpoint_step() == 2; }));
  cluster_.Restart(server_->address(), 1, held);
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_RECOVERING));
  cluster_.End(1, "PREEMPTED", "job 7 was preempted");
  Start(2);
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(Get(job.name()).attempts(0).outcome().code(), "PREEMPTED");
  EXPECT_THAT(cluster_.ended_by_request(), ::testing::IsEmpty());
}

TEST_F(AllocationTest, AnAllocationThatSomebodyCancelsIsNotBegunAnew) {
  AgentScript held;
  held.hold_before_step = 4;
  const v1::Job job = Create(Request("stopped"));
  Start(1, held);
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_RUNNING));
  cluster_.Terminate(1, "ALLOCATION_CANCELLED", "job 7 was cancelled");
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_FAILED));
  EXPECT_THAT(Get(job.name()).reason().message(), HasSubstr("job 7 was cancelled"));
  EXPECT_FALSE(cluster_.Knows(2));
}

TEST_F(AllocationTest, ARefusalIsTheUsersToRepair) {
  const v1::Job job = Create(Request("refused"));
  for (int64_t epoch = 1; epoch <= 2; ++epoch) {
    ASSERT_TRUE(Wait([&] { return cluster_.Knows(epoch); }));
    cluster_.End(epoch, "ALLOCATION_REFUSED", "sbatch refuses: invalid partition gpu");
  }
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_FAILED));
  EXPECT_EQ(Get(job.name()).reason().domain(), v1::FAILURE_DOMAIN_USER);
  EXPECT_THAT(Get(job.name()).reason().message(), HasSubstr("invalid partition gpu"));
}

TEST_F(AllocationTest, TheAgentOfAnAttemptThatIsOverIsTurnedAway) {
  AgentScript late;
  late.allocation = "0123456789abcdef01234567/3";
  ScriptedAgent agent(server_->address(), "0123456789abcdef01234567-e3-0", late);
  ASSERT_TRUE(Wait([&] { return agent.last_status().error_code() == grpc::FAILED_PRECONDITION; }));
  EXPECT_THAT(agent.last_status().error_message(), HasSubstr("is over"));
}

TEST_F(AllocationTest, ACoordinatorThatCameBackFindsTheAgentsOfARunningAttempt) {
  AgentScript held;
  held.hold_before_step = 4;
  const v1::Job job = Create(Request("kept"));
  Start(1, held);
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_RUNNING));
  const std::string address = server_->address();
  server_.reset();
  ServerOptions options;
  options.listen = address;
  options.state_dir = root_ + "/state";
  options.allocator = &cluster_;
  auto again = Server::Start(std::move(options));
  ASSERT_TRUE(again.ok()) << again.status();
  server_ = *std::move(again);
  ASSERT_TRUE(WaitForNodes(1));
  EXPECT_EQ(Get(job.name()).state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(Get(job.name()).epoch(), 1);
  Desire(&v1::JobService::Stub::CancelJob, job.name());
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_CANCELLED));
}

}  // namespace
}  // namespace switchyard::coordinator
