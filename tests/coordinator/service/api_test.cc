// The API's manners: errors, replay, paging, limits, standard services; and how the program starts.
#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <grpcpp/health_check_service_interface.h>

#include <future>
#include <set>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/coordinator/support/coordinator_fixture.h"
#include "tests/coordinator/support/scripted_agent.h"

namespace switchyard::coordinator {
namespace {

using testing::HasSubstr;

std::vector<std::string> ViolatedFields(const grpc::Status& status) {
  google::rpc::Status rich;
  rich.ParseFromString(status.error_details());
  std::vector<std::string> fields;
  for (const auto& detail : rich.details()) {
    google::rpc::BadRequest bad;
    if (!detail.UnpackTo(&bad)) continue;
    for (const auto& violation : bad.field_violations()) fields.push_back(violation.field());
  }
  return fields;
}

std::string Reason(const grpc::Status& status) {
  google::rpc::Status rich;
  rich.ParseFromString(status.error_details());
  for (const auto& detail : rich.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info) && info.domain() == "switchyard") return info.reason();
  }
  return "";
}

class ApiTest : public CoordinatorFixture {
 protected:
  void SetUp() override {
    CoordinatorFixture::SetUp();
    agent_ = std::make_unique<ScriptedAgent>(server_->address(), "a",
                                             AgentScript{.slots = 2, .hold_before_step = 2});
    ASSERT_TRUE(WaitForNodes(1));
  }
  grpc::Status TryCreate(const v1::CreateJobRequest& request, v1::Job* job = nullptr) {
    grpc::ClientContext context;
    v1::Job ignored;
    return jobs_->CreateJob(&context, request, job == nullptr ? &ignored : job);
  }
  std::unique_ptr<ScriptedAgent> agent_;
};

TEST_F(ApiTest, TellsEveryViolationAtOnce) {
  auto request = Request("Bad Name");
  request.set_job_id("-x");
  request.mutable_spec()->mutable_training()->set_learning_rate(-1);
  const grpc::Status status = TryCreate(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(ViolatedFields(status),
              testing::UnorderedElementsAre("name", "job_id", "training.learning_rate"));
  EXPECT_EQ(Reason(status), "INVALID_REQUEST");
}

TEST_F(ApiTest, RefusesFieldsThatItDoesNotKnow) {
  auto request = Request("demo");
  request.mutable_spec()
      ->mutable_data()
      ->GetReflection()
      ->MutableUnknownFields(request.mutable_spec()->mutable_data())
      ->AddVarint(777, 1);
  const grpc::Status status = TryCreate(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("777"));
}

TEST_F(ApiTest, NamesTheModelThatCannotBeRead) {
  auto request = Request("demo");
  request.mutable_spec()->set_model("/no/such/model");
  const grpc::Status status = TryCreate(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(ViolatedFields(status), testing::ElementsAre("model"));
}

TEST_F(ApiTest, RefusesWhatNoNodesCanRun) {
  const grpc::Status status = TryCreate(Request("demo", 16));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reason(status), "PLAN_INFEASIBLE");
}

TEST_F(ApiTest, RepeatsTheFirstAnswerToARepeatedRequest) {
  auto request = Request("demo");
  request.set_request_id("id-1");
  v1::Job first, second;
  ASSERT_TRUE(TryCreate(request, &first).ok());
  ASSERT_TRUE(TryCreate(request, &second).ok());
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(first, second))
      << second.DebugString();
  auto other = Request("other");
  other.set_request_id("id-1");
  const grpc::Status status = TryCreate(other);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(Reason(status), "REQUEST_ID_REUSED");
}

TEST_F(ApiTest, MakesOneJobOfManyCallsWithOneRequestId) {
  auto request = Request("demo");
  request.set_request_id("id-1");
  std::vector<std::future<std::string>> calls;
  for (int i = 0; i < 8; ++i) {
    calls.push_back(std::async(std::launch::async, [&] {
      v1::Job job;
      const grpc::Status status = TryCreate(request, &job);
      return status.ok() ? job.uid() : status.error_message();
    }));
  }
  std::set<std::string> uids;
  for (auto& call : calls) uids.insert(call.get());
  EXPECT_EQ(uids.size(), 1) << *uids.begin();
}

TEST_F(ApiTest, ValidateOnlyStoresNothing) {
  auto request = Request("demo");
  request.set_validate_only(true);
  v1::Job job;
  ASSERT_TRUE(TryCreate(request, &job).ok());
  EXPECT_EQ(job.plan().ranks(), 2);
  EXPECT_TRUE(job.uid().empty());
  EXPECT_TRUE(Get("projects/default/jobs/demo").name().empty());
}

TEST_F(ApiTest, MakesNamesUniqueAndGuardsTheOutput) {
  EXPECT_EQ(Create(Request("demo")).name(), "projects/default/jobs/demo");
  auto request = Request("demo");
  EXPECT_EQ(Reason(TryCreate(request)), "OUTPUT_IN_USE");
  request.mutable_spec()->mutable_checkpoint()->set_output(root_ + "/out/2");
  EXPECT_EQ(Create(request).name(), "projects/default/jobs/demo-2");
  request.set_job_id("demo");
  request.mutable_spec()->mutable_checkpoint()->set_output(root_ + "/out/3");
  EXPECT_EQ(Reason(TryCreate(request)), "JOB_EXISTS");
}

TEST_F(ApiTest, GuardsTheOutputHoweverItIsSpelt) {
  const std::string out = root_ + "/out/demo";
  std::filesystem::create_directories(out);
  std::filesystem::create_directory_symlink(out, root_ + "/link");
  std::filesystem::create_directory_symlink(root_ + "/out", root_ + "/outs");
  auto request = Request("demo");
  request.mutable_spec()->mutable_checkpoint()->set_output(root_ + "/outs//demo/./");
  const v1::Job job = Create(request);
  EXPECT_EQ(job.spec().checkpoint().output(), root_ + "/outs/demo") << "links stay as written";
  const auto reason = [&](const std::string& output) {
    request.mutable_spec()->mutable_checkpoint()->set_output(output);
    return Reason(TryCreate(request));
  };
  for (const std::string& same : {out + "/", "/" + out, root_ + "/./out/demo", out + "/.",
                                  root_ + "/link", root_ + "/outs/demo"}) {
    EXPECT_EQ(reason(same), "OUTPUT_IN_USE") << same;
  }
  EXPECT_EQ(reason(out + "/checkpoints/mine"), "OUTPUT_IN_USE") << "inside the other's";
  EXPECT_EQ(reason(root_ + "/out"), "OUTPUT_IN_USE") << "around the other's";
  EXPECT_EQ(reason(root_ + "/out/demo-2"), "") << "beside it";
  grpc::ClientContext cancel, retry;
  v1::CancelJobRequest ended;
  ended.set_name(job.name());
  v1::Job answer;
  ASSERT_TRUE(jobs_->CancelJob(&cancel, ended, &answer).ok());
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_CANCELLED));
  EXPECT_EQ(reason(out), "");
  v1::RetryJobRequest again;
  again.set_name(job.name());
  EXPECT_EQ(Reason(jobs_->RetryJob(&retry, again, &answer)), "OUTPUT_IN_USE");
}

TEST_F(ApiTest, PagesAndFiltersLists) {
  for (int i = 0; i < 5; ++i) {
    auto request = Request("job" + std::to_string(i));
    (*request.mutable_spec()->mutable_labels())["parity"] = i % 2 == 0 ? "even" : "odd";
    Create(request);
  }
  v1::ListJobsRequest list;
  list.set_parent("projects/-");
  list.set_page_size(2);
  list.set_filter("labels.parity=\"even\" AND terminal=false");
  std::vector<std::string> names;
  v1::ListJobsResponse response;
  do {
    grpc::ClientContext context;
    list.set_page_token(response.next_page_token());
    ASSERT_TRUE(jobs_->ListJobs(&context, list, &response).ok());
    for (const auto& job : response.jobs()) names.push_back(job.spec().name());
  } while (!response.next_page_token().empty());
  EXPECT_EQ(names, (std::vector<std::string>{"job4", "job2", "job0"}));

  const auto found = [&](const std::string& filter) {
    grpc::ClientContext context;
    v1::ListJobsRequest request;
    request.set_parent("projects/-");
    request.set_filter(filter);
    const grpc::Status status = jobs_->ListJobs(&context, request, &response);
    return status.ok() ? response.jobs_size() : -1;
  };
  EXPECT_EQ(found("labels.parity=odd"), 2);
  EXPECT_EQ(found("labels.parity=\"\""), 0);
  EXPECT_EQ(found("labels.parity="), -1) << "a value is missing";

  list.clear_page_token();
  grpc::ClientContext first_context;
  ASSERT_TRUE(jobs_->ListJobs(&first_context, list, &response).ok());
  list.set_page_token(response.next_page_token());
  list.set_filter("");
  grpc::ClientContext other_context;
  const auto status = jobs_->ListJobs(&other_context, list, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << "a token of another filter";
  list.clear_page_token();
  list.set_filter("colour=red");
  grpc::ClientContext bad_context;
  EXPECT_THAT(jobs_->ListJobs(&bad_context, list, &response).error_message(),
              HasSubstr("colour=red"));
}

TEST_F(ApiTest, AnswersFiveMebibytesWithAClearError) {
  auto request = Request("demo");
  request.mutable_spec()->mutable_data()->set_train("/" + std::string(5 << 20, 'x'));
  const grpc::Status status = TryCreate(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ApiTest, SaysNotFoundWithTheName) {
  grpc::ClientContext context;
  v1::GetJobRequest request;
  request.set_name("projects/default/jobs/none");
  v1::Job job;
  const grpc::Status status = jobs_->GetJob(&context, request, &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("projects/default/jobs/none"));
  grpc::ClientContext watch_context;
  v1::WatchJobsRequest watch;
  watch.set_parent("projects/default");
  watch.set_resume_token("nonsense");
  auto stream = jobs_->WatchJobs(&watch_context, watch);
  v1::WatchJobsResponse message;
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ApiTest, WatchTellsOfDeletedJobs) {
  const std::string name = Create(Request("demo")).name();
  grpc::ClientContext context;
  v1::WatchJobsRequest watch;
  watch.set_parent("projects/default");
  auto stream = jobs_->WatchJobs(&context, watch);
  v1::WatchJobsResponse message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.job().name(), name);
  grpc::ClientContext delete_context;
  v1::DeleteJobRequest request;
  request.set_name(name);
  v1::DeleteJobResponse response;
  ASSERT_TRUE(jobs_->DeleteJob(&delete_context, request, &response).ok());
  while (stream->Read(&message) && message.deleted().empty()) {
  }
  EXPECT_EQ(message.deleted(), name);
  context.TryCancel();
}

TEST_F(ApiTest, StartsOnlyWhereItMay) {
  const auto start = [](const std::string& listen, const std::string& state_dir) {
    ServerOptions options;
    options.listen = listen;
    options.state_dir = state_dir;
    return Server::Start(std::move(options)).status();
  };
  EXPECT_THAT(start(server_->address(), root_ + "/state2").message(), HasSubstr("port is taken"));
  EXPECT_THAT(start("0.0.0.0:7070", root_ + "/state2").message(), HasSubstr("TLS"));
  EXPECT_THAT(start("127.0.0.1:0", root_ + "/state").message(),
              HasSubstr("in use by another coordinator"));
  EXPECT_EQ(start("127.0.0.1:0", root_ + "/model/config.json/state").code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(ApiTest, AStartThatFailsAfterThePortIsOpenLeavesNothingRunning) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.state_dir = root_ + "/state2";
  // The file that is written last cannot be put in place.
  std::filesystem::create_directories(options.state_dir + "/listen-address/in the way");
  EXPECT_FALSE(Server::Start(std::move(options)).ok());
  std::filesystem::remove_all(root_ + "/state2/listen-address");
  ServerOptions again;
  again.listen = "127.0.0.1:0";
  again.state_dir = root_ + "/state2";
  EXPECT_TRUE(Server::Start(std::move(again)).ok()) << "the directory is not in use any more";
}

// Follows all jobs until told to stop; counts them by name, and notes how its call ended.
struct Follower {
  explicit Follower(v1::JobService::Stub& stub) : thread([this, &stub] { Follow(stub); }) {}
  void Follow(v1::JobService::Stub& stub) {
    v1::WatchJobsRequest request;
    request.set_parent("projects/default");
    auto stream = stub.WatchJobs(&context, request);
    v1::WatchJobsResponse message;
    while (stream->Read(&message)) {
      absl::MutexLock lock(&mutex);
      tokens &= !complete || !message.resume_token().empty();
      if (message.has_job()) names.insert(message.job().name());
      complete |= message.bookmark().snapshot_complete();
    }
    status = stream->Finish();
  }
  bool Has(size_t jobs) {
    absl::MutexLock lock(&mutex);
    return complete && names.size() >= jobs;
  }
  grpc::ClientContext context;
  absl::Mutex mutex;
  std::set<std::string> names ABSL_GUARDED_BY(mutex);
  bool complete ABSL_GUARDED_BY(mutex) = false;
  bool tokens ABSL_GUARDED_BY(mutex) = true;  // on every message after the snapshot
  grpc::Status status;
  std::thread thread;
};

TEST_F(ApiTest, WatchersThatBeginWhileJobsAreMadeMissNoneAndAreToldOfTheEnd) {
  constexpr size_t kJobs = 12;
  std::vector<std::unique_ptr<Follower>> followers;
  for (size_t i = 0; i < kJobs; ++i) {
    followers.push_back(std::make_unique<Follower>(*jobs_));
    Create(Request("job" + std::to_string(i)));
    // Some leave at once, in the middle of their snapshot or before it.
    Follower hasty(*jobs_);
    hasty.context.TryCancel();
    hasty.thread.join();
    EXPECT_EQ(hasty.status.error_code(), grpc::StatusCode::CANCELLED);
  }
  for (const auto& follower : followers) EXPECT_TRUE(Wait([&] { return follower->Has(kJobs); }));
  server_.reset();
  for (const auto& follower : followers) {
    follower->thread.join();
    EXPECT_EQ(follower->status.error_code(), grpc::StatusCode::UNAVAILABLE);
    absl::MutexLock lock(&follower->mutex);
    EXPECT_EQ(follower->names.size(), kJobs);
    EXPECT_TRUE(follower->tokens);
  }
}

}  // namespace
}  // namespace switchyard::coordinator
