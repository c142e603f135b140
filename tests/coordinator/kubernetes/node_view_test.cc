// What Jobs and pods say, as the controllers, the scheduler and kubelets of several versions say
// it.
#include "coordinator/kubernetes/node_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Stage = NodeView::Stage;

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

std::string Text(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone());
}
Json Job(const std::string& conditions = "[]", absl::Time made = kNow) {
  return {{"metadata", {{"name", "j-0"}, {"creationTimestamp", Text(made)}}},
          {"status", {{"conditions", Json::parse(conditions)}}}};
}
Json FailedJob(const std::string& reason, absl::Time when = kNow - absl::Minutes(1)) {
  Json job = Job(R"([{"type": "Failed", "status": "True", "message": "why"}])");
  job["status"]["conditions"][0]["reason"] = reason;
  job["status"]["conditions"][0]["lastTransitionTime"] = Text(when);
  return job;
}
Json Pod(const std::string& status, const std::string& machine = "m1") {
  Json pod = {{"metadata", {{"name", "j-0-x"}}}, {"status", Json::parse(status)}};
  if (!machine.empty()) pod["spec"]["nodeName"] = machine;
  return pod;
}
Json Ending(Json pod, absl::Time when = kNow) {
  pod["metadata"]["deletionTimestamp"] = Text(when);
  return pod;
}
NodeView View(const Json& job, const Json& pod) { return ViewNode(&job, {&pod}, kNow); }

TEST(NodeViewTest, APodThatWaitsSaysWhatTheSchedulerSays) {
  const NodeView view =
      View(Job(), Pod(R"({"phase": "Pending", "conditions": [{"type": "PodScheduled",
      "status": "False", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}]})",
                      ""));
  EXPECT_EQ(view.stage, Stage::kWaiting);
  EXPECT_TRUE(view.live);
  EXPECT_EQ(view.detail,
            "pod j-0-x waits for a node: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.");
  EXPECT_EQ(view.failure_code, "");
}

TEST(NodeViewTest, AJobWithoutAPodSaysWhereToLookAfterAWhile) {
  const Json young = Job();
  EXPECT_EQ(ViewNode(&young, {}, kNow).detail, "Kubernetes Job j-0 has no pod yet");
  const Json old = Job("[]", kNow - absl::Minutes(2));
  EXPECT_EQ(ViewNode(&old, {}, kNow).stage, Stage::kWaiting);
  EXPECT_THAT(ViewNode(&old, {}, kNow).detail, HasSubstr("kubectl describe job j-0"));
}

TEST(NodeViewTest, ASuspendedJobWaitsForItsQueue) {
  Json job = Job(R"([{"type": "Suspended", "status": "True", "message": "quota of team is used"}])",
                 kNow - absl::Hours(1));
  job["spec"]["suspend"] = true;
  const NodeView view = ViewNode(&job, {}, kNow);
  EXPECT_EQ(view.stage, Stage::kWaiting);
  EXPECT_EQ(view.detail,
            "Kubernetes Job j-0 is suspended, by a queue or by hand: quota of team is used");
}

TEST(NodeViewTest, AnImageThatCannotBePulledIsToldAndOneThatNeverCanIsRefused) {
  const auto waiting = [](const char* reason) {
    Json pod = Pod(R"({"phase": "Pending", "containerStatuses": [{"name": "agent", "state":
        {"waiting": {"message": "Back-off pulling image"}}}]})");
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] = reason;
    return View(Job(), pod);
  };
  const NodeView view = waiting("ImagePullBackOff");
  EXPECT_EQ(view.stage, Stage::kStarting);
  EXPECT_EQ(view.detail, "pod j-0-x cannot start on m1 (ImagePullBackOff): Back-off pulling image");
  EXPECT_EQ(view.failure_code, "");
  EXPECT_EQ(waiting("InvalidImageName").failure_code, "ALLOCATION_REFUSED");
  EXPECT_EQ(waiting("ContainerCreating").detail, "pod j-0-x starts on m1");
}

TEST(NodeViewTest, ARunningPodRuns) {
  const NodeView view = View(Job(), Pod(R"({"phase": "Running"})"));
  EXPECT_EQ(view.stage, Stage::kRunning);
  EXPECT_EQ(view.machine, "m1");
  EXPECT_EQ(View(Job(), Pod(R"({"phase": "Succeeded"})")).stage, Stage::kEnded);
  EXPECT_EQ(View(Job(), Pod(R"({"phase": "Succeeded"})")).failure_code, "");
}

TEST(NodeViewTest, AFailedPodHasTheCodeOfItsCause) {
  const struct {
    const char* status;
    const char* code;
    const char* words;
  } cases[] = {
      {R"({"containerStatuses": [{"name": "agent", "state": {"terminated":
           {"reason": "OOMKilled", "exitCode": 137}}}]})",
       "OUT_OF_MEMORY", "limits.memory"},
      {R"({"containerStatuses": [{"name": "agent", "state": {"terminated": {"reason": "Error",
           "exitCode": 1, "message": "--tls-dir: no such directory\n"}}}]})",
       "ALLOCATION_FAILED", "exit code 1 on m1: --tls-dir: no such directory"},
      {R"({"reason": "Evicted", "message": "The node was low on resource: memory."})",
       "ALLOCATION_FAILED", "low on resource: memory"},
      {R"({"reason": "Evicted", "message": "Pod was evicted for a drain"})", "PREEMPTED",
       "Evicted"},
      {R"({"reason": "Preempting", "message": "Preempted for a critical pod"})", "PREEMPTED",
       "critical"},
      {R"({"reason": "NodeLost"})", "NODE_LOST", "m1"},
      {R"({"reason": "Terminated", "message": "node shutdown"})", "PREEMPTED", "shutdown"},
      {R"({"reason": "DeadlineExceeded"})", "ALLOCATION_TIME_LIMIT", "activeDeadlineSeconds"},
      {R"({"reason": "UnexpectedAdmissionError", "message": "no devices left"})",
       "ALLOCATION_FAILED", "no devices left"},
      {R"({"conditions": [{"type": "DisruptionTarget", "status": "True",
           "reason": "PreemptionByScheduler", "message": "preempting"}]})",
       "PREEMPTED", "PreemptionByScheduler"},
      {R"({"conditions": [{"type": "DisruptionTarget", "status": "True",
           "reason": "DeletionByTaintManager"}], "containerStatuses": [{"name": "agent", "state":
           {"terminated": {"exitCode": 143}}}]})",
       "NODE_LOST", "DeletionByTaintManager"},
  };
  for (const auto& one : cases) {
    Json pod = Pod(one.status);
    pod["status"]["phase"] = "Failed";
    const NodeView view = View(FailedJob("BackoffLimitExceeded"), pod);
    EXPECT_EQ(view.stage, Stage::kEnded) << one.status;
    EXPECT_EQ(view.failure_code, one.code) << one.status;
    EXPECT_THAT(view.failure, AllOf(HasSubstr("j-0-x"), HasSubstr(one.words)));
    EXPECT_FALSE(view.live);
  }
}

TEST(NodeViewTest, APodThatIsTakenAwayFromItsJobIsPreemptedAndEndsLater) {
  const Json pod = Ending(Pod(R"({"phase": "Running"})"));
  EXPECT_EQ(View(Job(), pod).failure_code, "PREEMPTED");
  EXPECT_EQ(View(Job(), pod).stage, Stage::kRunning);
  // With its Job it ends as whoever ended that wanted.
  EXPECT_EQ(View(Ending(Job()), pod).failure_code, "");
  EXPECT_TRUE(View(Ending(Job()), pod).deleted);
  EXPECT_EQ(ViewNode(nullptr, {&pod}, kNow).failure_code, "");
  EXPECT_EQ(ViewNode(nullptr, {&pod}, kNow).stage, Stage::kRunning);
}

TEST(NodeViewTest, APodWhoseMachineNeverSaysThatItEndedIsGivenUp) {
  const Json pod = Ending(Pod(R"({"phase": "Running"})"), kNow - absl::Minutes(2));
  const NodeView view = View(Ending(Job()), pod);
  EXPECT_EQ(view.stage, Stage::kEnded);
  EXPECT_EQ(view.failure_code, "NODE_LOST");
}

TEST(NodeViewTest, AReplacedPodDoesNotHideThatTheNewOneRuns) {
  const Json job = Job();
  const Json old = Pod(R"({"phase": "Failed", "reason": "Evicted"})");
  const Json fresh = Pod(R"({"phase": "Running"})", "m2");
  const NodeView view = ViewNode(&job, {&old, &fresh}, kNow);
  EXPECT_EQ(view.stage, Stage::kRunning);
  EXPECT_EQ(view.failure_code, "PREEMPTED");
  EXPECT_TRUE(view.live);
}

TEST(NodeViewTest, AJobSpeaksForAPodThatIsGone) {
  const Json disrupted = FailedJob("PodFailurePolicy");
  EXPECT_EQ(ViewNode(&disrupted, {}, kNow).failure_code, "PREEMPTED");
  const Json failed = FailedJob("BackoffLimitExceeded");
  EXPECT_EQ(ViewNode(&failed, {}, kNow).failure_code, "ALLOCATION_FAILED");
  // But not before the pod could be heard.
  const Json fresh = FailedJob("BackoffLimitExceeded", kNow);
  EXPECT_EQ(ViewNode(&fresh, {}, kNow).failure_code, "");
  EXPECT_EQ(ViewNode(&fresh, {}, kNow).stage, Stage::kRunning);
  EXPECT_EQ(ViewNode(nullptr, {}, kNow).stage, Stage::kEnded);
  EXPECT_EQ(EndOfJob(failed), kNow - absl::Minutes(1));
}

TEST(NodeViewTest, WhatIsNoPodOrHasOtherTypesIsSurvived) {
  for (const char* text :
       {"{}", "[]", "null", R"({"status": 7, "metadata": []})",
        R"({"status": {"phase": 3, "conditions": {"a": 1}, "containerStatuses": [1]}})"}) {
    const Json object = Json::parse(text);
    EXPECT_EQ(ViewNode(&object, {&object}, kNow).stage, Stage::kWaiting) << text;
  }
}

}  // namespace
}  // namespace switchyard::coordinator
