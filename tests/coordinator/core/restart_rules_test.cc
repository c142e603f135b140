#include "coordinator/reconcile/restart_rules.h"

#include <gmock/gmock.h>

#include <map>

namespace switchyard::coordinator {
namespace {

using testing::HasSubstr;

Failure FailureOf(const std::string& code, int64_t step = 10) {
  Failure failure;
  failure.code = code;
  failure.message = code + " happened";
  failure.rank = 1;
  failure.node = "a";
  failure.step = step;
  return failure;
}

TEST(RestartRulesTest, StopsAtOnceWhenItWouldHappenAgain) {
  for (const char* code :
       {"CONFIG", "DATA", "MODEL", "OUTPUT", "PATHS", "NON_FINITE", "DOES_NOT_FIT"}) {
    const auto decision = DecideRestart(FailureOf(code), {}, {});
    EXPECT_FALSE(decision.restart) << code;
    EXPECT_EQ(decision.reason.domain(), v1::FAILURE_DOMAIN_USER) << code;
    EXPECT_THAT(decision.reason.message(), HasSubstr("rank 1 on a")) << code;
  }
}

TEST(RestartRulesTest, UsesUpTheAttemptsOfTheJobItself) {
  store::v1::RestartLedger ledger;
  AttemptHistory history;
  history.max_attempts = 3;
  for (int attempt = 1; attempt <= 3; ++attempt) {
    history.checkpoint_step_before = attempt;
    history.checkpoint_step_after = attempt + 1;
    const auto decision = DecideRestart(FailureOf("KILLED", attempt), history, ledger);
    EXPECT_EQ(decision.restart, attempt < 3);
    ledger = decision.ledger;
  }
  EXPECT_EQ(ledger.counted(), 3);
}

TEST(RestartRulesTest, LostNodesCostNoAttemptsAndWaitLonger) {
  store::v1::RestartLedger ledger;
  AttemptHistory history;
  history.max_attempts = 1;
  std::vector<int64_t> waits;
  for (int attempt = 0; attempt < 12; ++attempt) {
    const auto decision = DecideRestart(FailureOf("NODE_LOST"), history, ledger);
    ASSERT_TRUE(decision.restart);
    ledger = decision.ledger;
    waits.push_back(ledger.backoff_ms());
  }
  EXPECT_EQ(waits[0], 1000);
  EXPECT_EQ(waits[1], 2000);
  EXPECT_EQ(waits[11], 300000);
  EXPECT_EQ(ledger.counted(), 0);
  history.healthy_seconds = 1801;
  EXPECT_EQ(DecideRestart(FailureOf("NODE_LOST"), history, ledger).ledger.backoff_ms(), 1000);
}

TEST(RestartRulesTest, StopsAfterThreeAttemptsWithoutANewCheckpoint) {
  store::v1::RestartLedger ledger;
  AttemptHistory history;
  history.max_attempts = 100;
  for (int attempt = 1; attempt <= 3; ++attempt) {
    const auto decision = DecideRestart(FailureOf("DEVICE", attempt * 10), history, ledger);
    EXPECT_EQ(decision.restart, attempt < 3);
    ledger = decision.ledger;
  }
  history.checkpoint_step_after = 5;
  EXPECT_TRUE(DecideRestart(FailureOf("DEVICE"), history, ledger).restart) << "progress forgives";
}

TEST(RestartRulesTest, StopsWhenTheSameCrashComesBackWithoutAStepBetween) {
  AttemptHistory history;
  const auto first = DecideRestart(FailureOf("CRASHED", 10), history, {});
  EXPECT_TRUE(first.restart);
  EXPECT_FALSE(DecideRestart(FailureOf("CRASHED", 10), history, first.ledger).restart);
  EXPECT_TRUE(DecideRestart(FailureOf("CRASHED", 11), history, first.ledger).restart);
}

TEST(RestartRulesTest, OutOfMemoryBeforeTheFirstStepStops) {
  EXPECT_FALSE(DecideRestart(FailureOf("OUT_OF_MEMORY", 0), {}, {}).restart);
  const auto later = DecideRestart(FailureOf("OUT_OF_MEMORY", 7), {}, {});
  EXPECT_TRUE(later.restart);
  EXPECT_FALSE(DecideRestart(FailureOf("OUT_OF_MEMORY", 7), {}, later.ledger).restart);
}

TEST(RestartRulesTest, ACorruptCheckpointIsGivenUpForAnOlderOne) {
  AttemptHistory history;
  history.resumed_from_checkpoint = true;
  const auto decision = DecideRestart(FailureOf("CHECKPOINT_CORRUPT"), history, {});
  EXPECT_TRUE(decision.restart);
  EXPECT_TRUE(decision.mark_checkpoint_corrupt);
  EXPECT_EQ(decision.ledger.counted(), 0);
  EXPECT_FALSE(DecideRestart(FailureOf("CHECKPOINT_CORRUPT"), {}, {}).restart);
}

TEST(RestartRulesTest, TheCauseWinsOverWhatFollowsFromIt) {
  std::vector<Failure> failures = {FailureOf("PEER_LOST"), FailureOf("CRASHED"),
                                   FailureOf("NODE_LOST")};
  failures[0].time = 1;
  failures[1].time = 2;
  EXPECT_EQ(RootFailure(failures).code, "CRASHED");
  failures = {FailureOf("PEER_LOST"), FailureOf("NODE_LOST")};
  EXPECT_EQ(RootFailure(failures).code, "NODE_LOST");
  failures = {FailureOf("INTERNAL"), FailureOf("CRASHED")};
  failures[0].time = 5;
  failures[1].time = 4;
  EXPECT_EQ(RootFailure(failures).code, "CRASHED") << "first wins";
  failures[0].first_on_node = true;
  EXPECT_EQ(RootFailure(failures).code, "INTERNAL") << "the agent's word";
}

TEST(RestartRulesTest, ANodeIsAvoidedWhenItMayBeToBlameAndTheJobGoesOn) {
  for (const char* code : {"DEVICE", "KILLED", "HANG", "NODE_LOST", "SPAWN_FAILED"}) {
    EXPECT_TRUE(DecideRestart(FailureOf(code), {}, {}).avoid_node) << code;
  }
  // Upgraded, the others' fault, or not the node's.
  for (const char* code : {"AGENT_RESTARTED", "PEER_LOST", "CHECKPOINT_CORRUPT", "CONFIG"}) {
    EXPECT_FALSE(DecideRestart(FailureOf(code), {}, {}).avoid_node) << code;
  }
  Failure nowhere = FailureOf("LAUNCH_TIMEOUT");
  nowhere.node.clear();
  EXPECT_FALSE(DecideRestart(nowhere, {}, {}).avoid_node);
}

TEST(RestartRulesTest, ANodeIsNamedOnce) {
  Failure failure = FailureOf("DATA");
  failure.rank = -1;
  failure.message = "/data/train.jsonl:3: not JSON; fix the line";
  EXPECT_THAT(DecideRestart(failure, {}, {}).reason.message(),
              HasSubstr("fix the line (node a); not restarted"));
  failure.message = "on node a: /out is not writable";
  EXPECT_THAT(DecideRestart(failure, {}, {}).reason.message(),
              HasSubstr("on node a: /out is not writable; not restarted"));
}

}  // namespace
}  // namespace switchyard::coordinator
