// The queue of a whole core with a hand-turned clock: who waits for whom while nodes come and go.
#include <gmock/gmock.h>

#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/units.h"
#include "coordinator/job/memory_job_store.h"
#include "coordinator/plan/placement.h"
#include "coordinator/reconcile/core.h"

namespace switchyard::coordinator {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class HandClock final : public Clock {
 public:
  SteadyTime Steady() const override { return SteadyTime(std::chrono::hours(1) + now); }
  WallTime Wall() const override { return WallTime(std::chrono::hours(400000) + now); }
  milliseconds now{0};
};

v1::Plan PlanOf(int ranks, int64_t bytes) {
  v1::Plan plan;
  plan.set_feasible(true);
  plan.set_ranks(ranks);
  plan.set_expert_parallel(1);
  plan.set_device("cpu");
  plan.set_memory_bytes_per_rank(bytes);
  return plan;
}

// One rank for every slot.
class OpenMeshPlanner final : public JobPlanner {
 public:
  absl::StatusOr<v1::Plan> Plan(const v1::JobSpec&, const std::vector<PlannerSlot>& slots,
                                std::optional<int64_t>) override {
    return PlanOf(static_cast<int>(slots.size()), kGiB);
  }
  std::string TrainerConfig(const TrainerConfigInput&) override { return "{}"; }
};

class QueueTest : public testing::Test, public AgentTransport {
 protected:
  void SetUp() override {
    log::SetMinimumLevel(static_cast<log::Level>(4));
    StartCoordinator();
  }
  void Send(uint64_t, const agent::v1::ConnectResponse&) override {}
  void Close(uint64_t) override {}

  // A coordinator over what the one before has stored; agents have yet to dial in.
  void StartCoordinator() {
    sessions_.clear();
    core_ = std::make_unique<Core>(options_, clock_, store_, planner_, *this,
                                   [this] { return absl::StrCat("id", ++ids_); });
    ASSERT_TRUE(core_->Start().ok());
  }
  // An agent of a machine with 8 GiB, all of which it offers in two slots.
  void Connect(const std::string& node) {
    agent::v1::Hello hello;
    hello.set_node(node);
    hello.set_incarnation(node);
    hello.set_protocol_min(1);
    hello.set_protocol_max(1);
    hello.mutable_inventory()->set_memory_domain("machine");
    for (int i = 0; i < 2; ++i) {
      auto& slot = *hello.mutable_inventory()->add_slots();
      slot.set_index(i);
      slot.set_device("cpu");
      slot.set_memory_bytes(4 * kGiB);
    }
    sessions_[node] = ++next_session_;
    ASSERT_TRUE(core_->OnHello(sessions_[node], hello).ok());
  }
  void Disconnect(const std::string& node) {
    core_->OnDisconnected(sessions_[node], node);
    sessions_.erase(node);
  }
  // Time passes; agents that are connected say that they live.
  void Run(milliseconds duration) {
    for (const milliseconds end = clock_.now + duration; clock_.now < end;) {
      clock_.now += milliseconds(500);
      for (const auto& [node, session] : sessions_) {
        agent::v1::ConnectRequest message;
        message.mutable_heartbeat()->set_sequence(1);
        core_->OnMessage(session, node, message);
      }
      ASSERT_TRUE(core_->Step().ok());
    }
  }
  void Add(const std::string& uid, int ranks, int64_t bytes = kGiB, bool open_mesh = false) {
    store::v1::JobRecord record;
    v1::Job& job = *record.mutable_job();
    job.set_uid(uid);
    job.set_name("projects/default/jobs/" + uid);
    job.mutable_spec()->mutable_mesh()->set_ranks(open_mesh ? 0 : ranks);
    job.mutable_spec()->mutable_checkpoint()->set_output("/out/" + uid);
    *job.mutable_plan() = PlanOf(ranks, bytes);
    job.set_state(v1::JOB_STATE_QUEUED);
    job.set_desired_state(v1::DESIRED_STATE_RUN);
    record.set_create_sequence(core_->context().book.NextSequence());
    core_->context().book.Add(record);
    ASSERT_TRUE(core_->Flush().ok());
  }
  const v1::Job& Job(const std::string& uid) { return core_->context().book.Find(uid)->job(); }
  bool Waits(const std::string& uid) { return Job(uid).state() == v1::JOB_STATE_QUEUED; }

  CoreOptions options_;
  HandClock clock_;
  MemoryJobStore store_;
  OpenMeshPlanner planner_;
  std::unique_ptr<Core> core_;
  std::map<std::string, uint64_t> sessions_;
  uint64_t next_session_ = 0;
  int ids_ = 0;
};

// "running" holds one slot; "large" waits for all four, "small" stands behind it.
class LargeJobTest : public QueueTest {
 protected:
  void SetUp() override {
    QueueTest::SetUp();
    Connect("a");
    Connect("b");
    Run(seconds(1));
    Add("running", 1);
    Run(seconds(1));
    ASSERT_FALSE(Waits("running"));
    Add("large", 4, kGiB, /*open_mesh=*/true);
    Add("small", 1);
    Run(seconds(1));
    ExpectLargeIsNext();
  }
  void ExpectLargeIsNext() {
    EXPECT_TRUE(Waits("large"));
    EXPECT_TRUE(Waits("small"));
    EXPECT_EQ(Job("large").plan().ranks(), 4);
    EXPECT_NE(Job("large").reason().code(), "NOT_ENOUGH_NODES");
  }
  std::string idle() { return Job("running").attempts(0).placements(0).node() == "a" ? "b" : "a"; }
};

TEST_F(LargeJobTest, IsNotOvertakenWhileANodeIsSilent) {
  Disconnect(idle());
  Run(seconds(5));
  ExpectLargeIsNext();
  Connect("a");
  Connect("b");
  Run(seconds(1));
  ExpectLargeIsNext();
}

TEST_F(LargeJobTest, IsNotOvertakenAfterTheCoordinatorsRestart) {
  const std::string busy = idle() == "a" ? "b" : "a", other = idle();
  StartCoordinator();
  Run(seconds(2));
  ExpectLargeIsNext();
  Connect(busy);
  Run(seconds(5));
  ExpectLargeIsNext();
  Connect(other);
  Run(seconds(1));
  ExpectLargeIsNext();
}

TEST_F(LargeJobTest, TakesAnotherMeshOnceANodeIsLost) {
  Disconnect(idle());
  Run(seconds(20));
  EXPECT_EQ(Job("large").plan().ranks(), 2);
}

TEST_F(QueueTest, TheReasonSaysWhatIsSoNow) {
  Connect("a");
  Connect("b");
  Run(seconds(1));
  Add("running", 1);
  Run(seconds(1));
  Add("large", 4, 1900 * kMiB);
  Disconnect(Job("running").attempts(0).placements(0).node() == "a" ? "b" : "a");
  Run(seconds(20));
  EXPECT_EQ(Job("large").reason().code(), "NOT_ENOUGH_NODES");
  EXPECT_THAT(Job("large").reason().message(), HasSubstr("with 1.95 GiB each"));
  sessions_.count("a") > 0 ? Connect("b") : Connect("a");
  Run(seconds(1));
  EXPECT_TRUE(Waits("large"));
  EXPECT_EQ(Job("large").reason().code(), "WAITING_FOR_SLOTS");
  EXPECT_EQ(Job("large").reason().message(), "waits for 4 cpu slots");
}

TEST_F(QueueTest, AnAgentThatJoinsAMachineBringsNoMemory) {
  Connect("a");
  Run(seconds(1));
  Add("first", 2, 3 * kGiB);
  Run(seconds(1));
  ASSERT_FALSE(Waits("first"));
  Connect("b");
  Add("second", 2, kGiB + kGiB / 2);
  Run(seconds(1));
  EXPECT_EQ(core_->NodeView("b").slots(0).memory_bytes(), 2 * kGiB);
  EXPECT_TRUE(Waits("second")) << "the first has promised memory of both agents' slots";
  EXPECT_NE(Job("second").reason().code(), "NOT_ENOUGH_NODES");
  EXPECT_LT(MachineRoom(core_->context()).at("machine"), 2 * SlotBytesNeeded(Job("second").plan()));
  core_->context().book.Edit("first").mutable_job()->set_desired_state(v1::DESIRED_STATE_CANCEL);
  agent::v1::ConnectRequest ended;
  ended.mutable_attempt_status()->set_job_uid("first");
  ended.mutable_attempt_status()->set_epoch(1);
  ended.mutable_attempt_status()->set_state(agent::v1::ATTEMPT_STATE_ENDED);
  core_->OnMessage(sessions_["a"], "a", ended);
  Run(seconds(1));
  EXPECT_FALSE(Waits("second"));
  EXPECT_GE(MachineRoom(core_->context()).at("machine"), 0);
}

}  // namespace
}  // namespace switchyard::coordinator
