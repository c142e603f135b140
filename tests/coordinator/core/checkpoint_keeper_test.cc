#include "coordinator/checkpoint/checkpoint_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "coordinator/job/memory_job_store.h"

namespace switchyard::coordinator {
namespace {

using testing::Optional;

constexpr char kUid[] = "u1";

class NoPlanner final : public JobPlanner {
 public:
  absl::StatusOr<v1::Plan> Plan(const v1::JobSpec&, const std::vector<PlannerSlot>&,
                                std::optional<int64_t>) override {
    return v1::Plan();
  }
  std::string TrainerConfig(const TrainerConfigInput&) override { return ""; }
};

// A job of two ranks whose first attempt runs.
class EvalLossTest : public testing::Test {
 protected:
  EvalLossTest() {
    Start();
    store::v1::JobRecord record;
    record.mutable_job()->set_uid(kUid);
    record.mutable_job()->set_name("projects/default/jobs/demo");
    record.mutable_job()->set_epoch(1);
    record.mutable_job()->add_attempts()->set_epoch(1);
    record.mutable_launch();
    book_->Add(record);
    EXPECT_TRUE(book_->Commit().ok());
  }

  // A coordinator with nothing but what is stored.
  void Start() {
    book_ = std::make_unique<JobBook>(store_, clock_);
    StoreSnapshot snapshot;
    EXPECT_TRUE(book_->Load(&snapshot).ok());
    core_.reset(new CoreContext{options_,
                                clock_,
                                *book_,
                                nodes_,
                                planner_,
                                [] { return std::string("id"); },
                                {},
                                {},
                                nullptr});
  }
  void Restart() {
    EXPECT_TRUE(book_->Commit().ok());
    Start();
  }

  void Evaluate(int64_t step, double loss) {
    trainer::v1::Eval eval;
    eval.set_step(step);
    eval.set_loss(loss);
    OnEvaluated(*core_, kUid, eval);
  }
  void Save(int64_t step, bool final = false) {
    AttemptFacts facts;
    facts.world = 2;
    for (int rank = 0; rank < facts.world; ++rank) {
      auto& shard = facts.shards.emplace_back();
      shard.set_rank(rank);
      shard.set_step(step);
      shard.set_final(final);
      shard.set_final_path(Path(step, final));
    }
    CommitCheckpoints(*core_, kUid, facts);
  }
  void Publish(int64_t step, bool final = false) {
    agent::v1::CheckpointPublished published;
    published.set_job_uid(kUid);
    published.set_epoch(1);
    published.set_final_path(Path(step, final));
    OnCheckpointPublished(*core_, published);
  }
  std::optional<double> LossOf(int64_t step, bool final = false) const {
    for (const auto& [name, record] : book_->checkpoints(kUid)) {
      const v1::Checkpoint& checkpoint = record.checkpoint();
      if (checkpoint.path() != Path(step, final) || !checkpoint.has_eval_loss()) continue;
      return checkpoint.eval_loss();
    }
    return std::nullopt;
  }
  static std::string Path(int64_t step, bool final) {
    return "/out/" + std::to_string(step) + (final ? "-final" : "");
  }

  MemoryJobStore store_;
  const SystemClock clock_;
  const CoreOptions options_;
  NodeTable nodes_{options_.nodes};
  NoPlanner planner_;
  std::unique_ptr<JobBook> book_;
  std::unique_ptr<CoreContext> core_;
};

TEST_F(EvalLossTest, IsOfTheCheckpointsStepAndOfNoOther) {
  Evaluate(0, 9);
  Evaluate(40, 4);
  Save(40);
  Save(60);
  Evaluate(80, 3);
  Save(80, true);
  for (const auto& [step, final] : {std::pair{40, false}, {60, false}, {80, true}})
    Publish(step, final);
  EXPECT_THAT(LossOf(40), Optional(4.0));
  EXPECT_EQ(LossOf(60), std::nullopt);
  EXPECT_THAT(LossOf(80, true), Optional(3.0));
}

TEST_F(EvalLossTest, MayBeMeasuredAfterItsCheckpointWasCommittedOrPutInPlace) {
  Save(40);
  Evaluate(40, 4);
  EXPECT_THAT(LossOf(40), Optional(4.0));
  Save(80);
  Publish(80);
  Evaluate(80, 3);
  EXPECT_THAT(LossOf(80), Optional(3.0));
  EXPECT_THAT(LossOf(40), Optional(4.0));
}

TEST_F(EvalLossTest, OutlivesTheCoordinatorUntilItsCheckpointIsCommitted) {
  Evaluate(40, 4);
  Restart();
  Save(40);
  Restart();
  Publish(40);
  EXPECT_THAT(LossOf(40), Optional(4.0));
}

TEST_F(EvalLossTest, OnlyTheNewestEvaluationsAreKept) {
  for (int64_t step = 1; step <= 100; ++step) Evaluate(step, static_cast<double>(step));
  EXPECT_LE(book_->Find(kUid)->launch().eval_losses_size(), 10);
  Save(100);
  EXPECT_THAT(LossOf(100), Optional(100.0));
}

}  // namespace
}  // namespace switchyard::coordinator
