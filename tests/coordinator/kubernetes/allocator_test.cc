// The Kubernetes launcher against an API server that loses answers, forgets and is used by others.
#include "coordinator/kubernetes/allocator.h"

#include "tests/coordinator/kubernetes/kubernetes_fixture.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const AttemptKey kAttempt = {"0123456789abcdef01234567", 3};
constexpr char kFirst[] = "switchyard-store-0123456789abcdef01234567-e3-0";
constexpr char kSecond[] = "switchyard-store-0123456789abcdef01234567-e3-1";
const Json kRuns = {{"phase", "Running"}};

class KubernetesAllocatorTest : public KubernetesFixture {
 protected:
  void SetUp() override {
    KubernetesFixture::SetUp();
    config_.set_coordinator("c:7070");
    config_.set_image("image");
    config_.add_agent_command("agent");
    config_.set_work_dir("/work");
    config_.set_gpu_resource("nvidia.com/gpu");
    auto& nodes = *config_.mutable_nodes();
    nodes.set_count(2);
    nodes.set_device("cuda");
    nodes.set_slots(8);
    nodes.set_product("NVIDIA H200");
    nodes.set_slot_memory_gib(140);
    nodes.set_cpu_cores(96);
    config_.set_grace_seconds(60);
    config_.set_start_seconds(900);
    config_.set_keep_finished_seconds(3600);
    config_.set_poll_seconds(1);
  }
  void TearDown() override {
    allocator_.reset();
    KubernetesFixture::TearDown();
  }
  void Start() {
    allocator_ = std::make_unique<KubernetesAllocator>(config_, server_->ClientOptions());
  }
  static Allocation Wanted(bool keep = true) {
    Allocation allocation;
    allocation.attempt = kAttempt;
    allocation.job = "projects/default/jobs/demo";
    allocation.nodes = 2;
    allocation.slots_per_node = 8;
    allocation.keep = keep;
    return allocation;
  }
  void Want(std::vector<Allocation> allocations) {
    allocator_->Want("store", std::move(allocations));
  }
  AllocationStatus Now() { return allocator_->Look(kAttempt); }
  bool WaitFor(AllocationState state) {
    return Wait([&] { return Now().state == state; });
  }
  // Both pods run.
  void Run() {
    Want({Wanted()});
    ASSERT_TRUE(Wait([&] { return server_->Has("pods", std::string(kSecond) + "-pod"); }));
    server_->SetPod(kFirst, kRuns, "m1");
    server_->SetPod(kSecond, kRuns, "m2");
    ASSERT_TRUE(WaitFor(AllocationState::kRunning));
  }
  int Posts() { return server_->Count("POST", "/jobs"); }

  launch::v1::KubernetesConfig config_;
  std::unique_ptr<KubernetesAllocator> allocator_;
};

TEST_F(KubernetesAllocatorTest, AnAttemptIsAJobForEachNodeAndAService) {
  Start();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(server_->Count("GET") + server_->Count("POST"), 0);  // before the store has spoken
  Want({Wanted()});
  ASSERT_TRUE(WaitFor(AllocationState::kPending));
  ASSERT_TRUE(Wait([&] { return server_->Names("services").size() == 1; }));
  EXPECT_THAT(server_->Names("jobs"), ElementsAre(kFirst, kSecond));
  EXPECT_EQ(TextAt(ListAt(server_->Find("services", server_->Names("services")[0]),
                          {"metadata", "ownerReferences"})[0],
                   {"uid"}),
            TextAt(server_->Find("jobs", kFirst), {"metadata", "uid"}));
  server_->SetPod(kFirst, kRuns, "m1");
  server_->SetPod(kSecond, {{"phase", "Pending"},
                            {"conditions", Json::array({{{"type", "PodScheduled"},
                                                         {"status", "False"},
                                                         {"message", "Insufficient gpu"}}})}});
  ASSERT_TRUE(Wait([&] {
    return Now().detail ==
           "pod " + std::string(kSecond) + "-pod waits for a node: Insufficient gpu";
  }));
  server_->SetPod(kSecond, kRuns, "m2");
  ASSERT_TRUE(WaitFor(AllocationState::kRunning));
  EXPECT_EQ(Now().detail,
            "Kubernetes Jobs switchyard-store-0123456789abcdef01234567-e3-* run on m1, m2");
  EXPECT_EQ(Posts(), 2);
}

TEST_F(KubernetesAllocatorTest, ACoordinatorThatStartsAnewAdoptsWhatRunsAndEndsWhatIsOver) {
  Start();
  Run();
  allocator_.reset();
  for (const auto& [name, store, epoch] :
       {std::tuple("switchyard-store-0123456789abcdef01234567-e2-0", "store", "2"),
        std::tuple("switchyard-other-0123456789abcdef01234567-e2-0", "other", "2"),
        // Labels like ours under a name that we would not give.
        std::tuple("somebodys-job", "store", "2")}) {
    Json job = server_->Find("jobs", kFirst);
    job["metadata"].erase("uid");
    job["metadata"]["labels"]["switchyard.dev/store"] = store;
    job["metadata"]["labels"]["switchyard.dev/epoch"] = epoch;
    server_->Put("jobs", name, std::move(job));
  }
  const int posts = Posts();
  Start();
  Want({Wanted()});
  ASSERT_TRUE(WaitFor(AllocationState::kRunning));
  ASSERT_TRUE(Wait(
      [&] { return !server_->Has("jobs", "switchyard-store-0123456789abcdef01234567-e2-0"); }));
  EXPECT_EQ(Posts(), posts);
  EXPECT_THAT(server_->Names("jobs"),
              ElementsAre("somebodys-job", "switchyard-other-0123456789abcdef01234567-e2-0", kFirst,
                          kSecond));
}

TEST_F(KubernetesAllocatorTest, ALostAnswerLeadsToNoSecondJob) {
  server_->Give({"POST", "/jobs", 504, "", /*after_effect=*/true, "timeout"});
  Start();
  Run();
  EXPECT_EQ(Posts(), 3);  // the second is answered with 409
  EXPECT_THAT(server_->Names("jobs"), ElementsAre(kFirst, kSecond));
}

TEST_F(KubernetesAllocatorTest, AForeignJobOfTheNameIsNeverTouchedAndReported) {
  server_->Put("jobs", kFirst, {{"spec", {{"of", "somebody"}}}});
  const Json before = server_->Find("jobs", kFirst);
  Start();
  Want({Wanted()});
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "ALLOCATION_REFUSED");
  EXPECT_THAT(Now().detail, AllOf(HasSubstr(kFirst), HasSubstr("switchyard.dev/store")));
  Want({});
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_EQ(server_->Find("jobs", kFirst), before);
  EXPECT_EQ(server_->Count("DELETE"), 0);
}

TEST_F(KubernetesAllocatorTest, ARefusalEndsTheAttemptAndIsNotRepeated) {
  server_->Give({"POST", "/jobs", 422, "", false, "spec.template: Invalid value", 100});
  Start();
  Want({Wanted()});
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "ALLOCATION_REFUSED");
  EXPECT_THAT(Now().detail, HasSubstr("spec.template: Invalid value"));
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_EQ(Posts(), 1);
}

TEST_F(KubernetesAllocatorTest, AMissingRightIsToldAndTheAttemptGoesOnWhenItIsGiven) {
  server_->Give({"POST", "/jobs", 403, "", false, "jobs.batch is forbidden", 1});
  Start();
  Want({Wanted()});
  ASSERT_TRUE(Wait([&] { return Now().detail.find("is forbidden") != std::string::npos; }));
  EXPECT_EQ(Now().state, AllocationState::kUnknown);
  EXPECT_THAT(Now().detail, HasSubstr("must allow \"create\""));
  ASSERT_TRUE(WaitFor(AllocationState::kPending));
}

TEST_F(KubernetesAllocatorTest, WhatIsToEndIsDeletedAndThenSeenToBeGone) {
  Start();
  Run();
  server_->SetLinger(true);
  Want({Wanted(/*keep=*/false)});
  ASSERT_TRUE(Wait([&] { return server_->Count("DELETE", "/jobs/") == 2; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_EQ(Now().state, AllocationState::kRunning);  // pods have their grace
  server_->SetLinger(false);
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "");
  EXPECT_EQ(server_->Count("DELETE", "/jobs/"), 2);
}

TEST_F(KubernetesAllocatorTest, WhenOnePodEndsTheOthersAreEndedAndItsReasonStands) {
  Start();
  Run();
  server_->SetLinger(true);
  server_->SetPod(kSecond,
                  {{"phase", "Failed"},
                   {"containerStatuses",
                    Json::array({{{"name", "agent"},
                                  {"state", {{"terminated", {{"reason", "OOMKilled"}}}}}}})}},
                  "m2");
  ASSERT_TRUE(Wait([&] { return server_->Count("DELETE", kFirst) == 1; }));
  EXPECT_EQ(Now().state, AllocationState::kRunning);
  server_->SetLinger(false);
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "OUT_OF_MEMORY");
  EXPECT_EQ(server_->Count("DELETE", kSecond), 0);  // its log can still be read
  // The coordinator ends the attempt for it; the reason stays.
  Want({Wanted(/*keep=*/false)});
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(Now().code, "OUT_OF_MEMORY");
}

TEST_F(KubernetesAllocatorTest, AJobThatSomebodyDeletedIsNotMadeAgain) {
  Start();
  Run();
  const int posts = Posts();
  server_->Remove("jobs", kFirst);
  server_->Remove("pods", std::string(kFirst) + "-pod");
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "ALLOCATION_CANCELLED");
  EXPECT_EQ(Posts(), posts);
  EXPECT_FALSE(server_->Has("jobs", kSecond));
}

TEST_F(KubernetesAllocatorTest, APodThatIsTakenAwayIsPreemptedUnlessItsJobWentToo) {
  Start();
  Run();
  Json pod = server_->Find("pods", std::string(kFirst) + "-pod");
  pod["metadata"]["deletionTimestamp"] =
      absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone());
  server_->Put("pods", std::string(kFirst) + "-pod", std::move(pod));
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "PREEMPTED");
  EXPECT_TRUE(server_->Names("jobs").empty());
}

TEST_F(KubernetesAllocatorTest, PodsThatHoldNodesWhileOthersCannotStartAreGivenBack) {
  config_.set_start_seconds(1);
  Start();
  Want({Wanted()});
  ASSERT_TRUE(Wait([&] { return server_->Has("pods", std::string(kSecond) + "-pod"); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_EQ(Now().state, AllocationState::kPending);  // none holds a node: it may wait
  server_->SetPod(kFirst, kRuns, "m1");
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "ALLOCATION_FAILED");
  EXPECT_THAT(Now().detail, AllOf(HasSubstr("1 of 2 pods"), HasSubstr("waits for a node")));
  EXPECT_TRUE(server_->Names("jobs").empty());
}

TEST_F(KubernetesAllocatorTest, JobsOfAttemptsThatAreOverStayForTheirLogsAndThenGo) {
  Start();
  Run();
  const auto complete = [&](const char* job, absl::Duration ago) {
    server_->SetPod(job, {{"phase", "Succeeded"}}, "m");
    server_->SetJob(job, {{"conditions",
                           Json::array({{{"type", "Complete"},
                                         {"status", "True"},
                                         {"lastTransitionTime",
                                          absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now() - ago,
                                                           absl::UTCTimeZone())}}})}});
  };
  complete(kFirst, absl::Hours(2));
  complete(kSecond, absl::ZeroDuration());
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "ALLOCATION_FAILED");  // nobody told its agents to leave
  Want({});
  ASSERT_TRUE(Wait([&] { return !server_->Has("jobs", kFirst); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  EXPECT_TRUE(server_->Has("jobs", kSecond));
}

TEST_F(KubernetesAllocatorTest, NothingIsMadeWhileTheServerDoesNotAnswer) {
  server_->Accept({});
  Start();
  Want({Wanted()});
  ASSERT_TRUE(Wait([&] { return Now().detail.find("is not accepted") != std::string::npos; }));
  EXPECT_EQ(Now().state, AllocationState::kUnknown);
  EXPECT_EQ(Posts(), 0);
  server_->Accept({"first"});
  ASSERT_TRUE(WaitFor(AllocationState::kPending));
}

TEST_F(KubernetesAllocatorTest, TheOfferIsTheFilesNodes) {
  Start();
  const auto slots = allocator_->Offer();
  ASSERT_EQ(slots.size(), 16u);
  EXPECT_EQ(slots.back().node, "1");
  EXPECT_EQ(slots.back().memory_domain, "kubernetes-1");
  EXPECT_EQ(slots.back().memory_bytes, int64_t{140} << 30);
}

}  // namespace
}  // namespace switchyard::coordinator
