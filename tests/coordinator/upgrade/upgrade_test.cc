// The coordinator is upgraded first: agents and stores of the release before must serve it. Both
// were recorded from that release's own programs (record_agent.py).
#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <sqlite3.h>

#include <atomic>
#include <deque>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/job/sqlite_job_store.h"
#include "switchyard/agent/v1/agent.grpc.pb.h"
#include "tests/coordinator/support/coordinator_fixture.h"

namespace switchyard::coordinator {
namespace {

using agent::v1::ConnectRequest;
using agent::v1::ConnectResponse;
using ::testing::HasSubstr;

std::string ReadBeside(const std::string& name) {
  std::stringstream text;
  text << std::ifstream(std::filesystem::path(std::getenv("SWITCHYARD_SOURCE_DIR")) /
                        "tests/coordinator/upgrade" / name)
              .rdbuf();
  return text.str();
}

// Plays an agent's side of a recorded conversation: says what it said, after it has heard what it
// had heard before.
class RecordedAgent {
 public:
  RecordedAgent(const std::string& address, std::string recording, std::string root)
      : recording_(std::move(recording)), root_(std::move(root)) {
    stub_ = agent::v1::AgentService::NewStub(rpc::MakeChannel(address));
    stream_ = stub_->Connect(&context_);
    reader_ = std::thread([this] {
      ConnectResponse message;
      while (stream_->Read(&message)) {
        absl::MutexLock lock(&mutex_);
        if (message.has_probe_paths()) uid_ = message.probe_paths().job_uid();
        heard_.push_back(message);
      }
    });
  }
  ~RecordedAgent() {
    context_.TryCancel();
    reader_.join();
    stream_->Finish();
  }

  // Only Hello and what came with it, so that a job can be planned; the rest by the next call.
  void SayHello() { Play(/*stop_before=*/ConnectResponse::kProbePaths); }
  void PlayRest() { Play(ConnectResponse::MESSAGE_NOT_SET); }
  int32_t protocol() {
    absl::MutexLock lock(&mutex_);
    for (const auto& message : all_) {
      if (message.has_welcome()) return message.welcome().protocol();
    }
    return 0;
  }

 private:
  template <typename Message>
  Message Parse(const nlohmann::json& entry) {
    std::string uid;
    {
      absl::MutexLock lock(&mutex_);
      uid = uid_;
    }
    const std::string text =
        absl::StrReplaceAll(entry.at("message").dump(), {{"@UID@", uid}, {"@ROOT@", root_}});
    Message message;
    const auto parsed = google::protobuf::util::JsonStringToMessage(text, &message);
    EXPECT_TRUE(parsed.ok()) << text;
    return message;
  }

  void Play(ConnectResponse::MessageCase stop_before) {
    std::stringstream lines(recording_);
    int64_t number = 0;
    for (std::string line; std::getline(lines, line); ++number) {
      if (number < played_) continue;
      const auto entry = nlohmann::json::parse(line);
      if (entry.at("from") == "coordinator") {
        const auto wanted = Parse<ConnectResponse>(entry).message_case();
        if (wanted == stop_before) return;
        ASSERT_TRUE(Hear(wanted)) << "the coordinator did not say, line " << number << ": " << line;
      } else {
        ASSERT_TRUE(stream_->Write(Parse<ConnectRequest>(entry))) << line;
      }
      played_ = number + 1;
    }
  }

  // Waits for a message of this kind; others that come before stay for later.
  bool Hear(ConnectResponse::MessageCase wanted) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < end) {
      {
        absl::MutexLock lock(&mutex_);
        for (auto it = heard_.begin(); it != heard_.end(); ++it) {
          if (it->message_case() != wanted) continue;
          all_.push_back(*it);
          heard_.erase(it);
          return true;
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  const std::string recording_, root_;
  int64_t played_ = 0;
  grpc::ClientContext context_;
  std::unique_ptr<agent::v1::AgentService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<ConnectRequest, ConnectResponse>> stream_;
  absl::Mutex mutex_;
  std::string uid_ ABSL_GUARDED_BY(mutex_);
  std::deque<ConnectResponse> heard_ ABSL_GUARDED_BY(mutex_);
  std::vector<ConnectResponse> all_ ABSL_GUARDED_BY(mutex_);
  std::thread reader_;
};

class UpgradeTest : public CoordinatorFixture {
 protected:
  // Makes the store that a release left, where the coordinator will look for it.
  void RestoreStore(const std::string& name) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(database().c_str(), &db), SQLITE_OK);
    char* error = nullptr;
    EXPECT_EQ(sqlite3_exec(db, ReadBeside(name).c_str(), nullptr, nullptr, &error), SQLITE_OK)
        << error;
    sqlite3_close(db);
  }
  void SetSchema(int schema) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(database().c_str(), &db), SQLITE_OK);
    const std::string sql = "PRAGMA user_version=" + std::to_string(schema);
    EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(db);
  }
  v1::Node Cordon(const std::string& name) {
    grpc::ClientContext context;
    v1::CordonNodeRequest request;
    request.set_name(name);
    v1::Node node;
    EXPECT_TRUE(nodes_->CordonNode(&context, request, &node).ok());
    return node;
  }
  v1::Node GetNode(const std::string& name) {
    grpc::ClientContext context;
    v1::GetNodeRequest request;
    request.set_name(name);
    v1::Node node;
    EXPECT_TRUE(nodes_->GetNode(&context, request, &node).ok());
    return node;
  }
  std::string database() const { return root_ + "/state/state.db"; }
};

TEST_F(UpgradeTest, AnAgentOfVersion010TakesAJobToItsEnd) {
  RecordedAgent agent(server_->address(), ReadBeside("agent_0.1.0.jsonl"), root_);
  agent.SayHello();
  ASSERT_TRUE(WaitForNodes(1));
  EXPECT_EQ(agent.protocol(), 1);
  const v1::Job job = Create(Request("demo"));
  agent.PlayRest();
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_SUCCEEDED));
  const v1::Job done = Get(job.name());
  EXPECT_EQ(done.attempts_size(), 1);
  EXPECT_EQ(done.progress().step(), 5);
  EXPECT_EQ(done.output_model(), root_ + "/out/demo/final");
}

TEST_F(UpgradeTest, AnAgentThatSpeaksOnlyANewerProtocolIsToldWhatToDo) {
  std::string recording = ReadBeside("agent_0.1.0.jsonl");
  recording = absl::StrReplaceAll(recording, {{"\"protocol_min\": 1", "\"protocol_min\": 9"},
                                              {"\"protocol_max\": 1", "\"protocol_max\": 9"}});
  const auto stub = agent::v1::AgentService::NewStub(channel_);
  grpc::ClientContext context;
  const auto stream = stub->Connect(&context);
  ConnectRequest hello;
  const auto first = nlohmann::json::parse(recording.substr(0, recording.find('\n')));
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(first.at("message").dump(), &hello).ok());
  stream->Write(hello);
  ConnectResponse answer;
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_THAT(stream->Finish().error_message(), HasSubstr("protocol 9 to 9"));
}

TEST_F(UpgradeTest, AStoreOfVersion010IsBackedUpAndMigratedWithAllItHolds) {
  server_.reset();
  std::filesystem::remove_all(root_ + "/state");
  std::filesystem::create_directory(root_ + "/state");
  RestoreStore("store_0.1.0.sql");
  StartCoordinator();
  const v1::Job job = Get("projects/default/jobs/demo");
  EXPECT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.progress().step(), 5);
  grpc::ClientContext context;
  v1::ListCheckpointsRequest list;
  list.set_parent(job.name());
  v1::ListCheckpointsResponse checkpoints;
  ASSERT_TRUE(checkpoints_->ListCheckpoints(&context, list, &checkpoints).ok());
  EXPECT_EQ(checkpoints.checkpoints_size(), 3);
  EXPECT_TRUE(Cordon("nodes/recorded").cordoned());
  server_.reset();

  // The backup is the store as it was: putting it back and starting again ends in the same place.
  const std::string backup = database() + ".schema-1.bak";
  ASSERT_TRUE(std::filesystem::exists(backup));
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(database() + suffix);
  std::filesystem::copy_file(backup, database());
  StartCoordinator();
  EXPECT_EQ(Get("projects/default/jobs/demo").state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_FALSE(GetNode("nodes/recorded").cordoned());
}

TEST_F(UpgradeTest, AStoreOfANewerProgramNamesThatProgramAndTheBackup) {
  server_.reset();
  ASSERT_TRUE(SqliteJobStore::Open(database(), "9.8.7").ok());
  SetSchema(77);
  const absl::Status refused = SqliteJobStore::Open(database(), "0.1.0").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("run version 9.8.7, which wrote it"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("state.db.schema-2.bak"));
}

}  // namespace
}  // namespace switchyard::coordinator
