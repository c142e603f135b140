#include <gmock/gmock.h>
#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "coordinator/job/job_book.h"
#include "coordinator/job/job_state.h"
#include "coordinator/job/memory_job_store.h"
#include "coordinator/job/sqlite_job_store.h"

namespace switchyard::coordinator {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

class JobStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "switchyard-store.XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/state.db";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<SqliteJobStore> Open() {
    auto store = SqliteJobStore::Open(path_, "test");
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }
  static store::v1::JobRecord Record(const std::string& uid, const std::string& name) {
    store::v1::JobRecord record;
    record.mutable_job()->set_uid(uid);
    record.mutable_job()->set_name(name);
    record.mutable_job()->set_state(v1::JOB_STATE_QUEUED);
    return record;
  }
  static v1::Event EventOf(int64_t sequence, const std::string& resource) {
    v1::Event event;
    event.set_sequence(sequence);
    event.set_resource(resource);
    return event;
  }

  std::string directory_, path_;
};

TEST(JobBookTest, AnAttemptThatRunsIsSeenAtTheJobsStep) {
  MemoryJobStore store;
  const SystemClock clock;
  JobBook book(store, clock);
  store::v1::JobRecord record;
  record.mutable_job()->set_uid("u1");
  record.mutable_job()->add_attempts()->set_last_step(40);
  record.mutable_job()->add_attempts();
  record.mutable_launch();
  book.Add(record);
  book.live("u1").progress.set_step(1513);
  EXPECT_EQ(book.View(*book.Find("u1")).attempts(0).last_step(), 40);
  EXPECT_EQ(book.View(*book.Find("u1")).attempts(1).last_step(), 1513);
  // An ended attempt keeps its own; the next one is not launched yet.
  store::v1::JobRecord& ended = book.Edit("u1");
  ended.mutable_job()->mutable_attempts(1)->set_last_step(1600);
  ended.clear_launch();
  EXPECT_EQ(book.View(ended).attempts(1).last_step(), 1600);
}

TEST_F(JobStoreTest, KeepsEverythingAcrossAnOpen) {
  std::string store_id;
  {
    auto store = Open();
    WriteBatch batch;
    batch.put_jobs = {Record("u1", "n1")};
    batch.events = {EventOf(1, "n1"), EventOf(2, "n2")};
    batch.changes = {{3, "n1", batch.put_jobs[0].job()}, {4, "n2", std::nullopt}};
    store::v1::CheckpointRecord checkpoint;
    checkpoint.set_job_uid("u1");
    checkpoint.mutable_checkpoint()->set_name("n1/checkpoints/5");
    batch.put_checkpoints = {checkpoint};
    batch.requests = {{"r", "hash", "answer"}};
    ASSERT_TRUE(store->Commit(batch).ok());
    store_id = store->Load()->store_id;
  }
  auto store = Open();
  const auto snapshot = store->Load();
  ASSERT_TRUE(snapshot.ok());
  EXPECT_EQ(snapshot->store_id, store_id);
  EXPECT_EQ(snapshot->last_sequence, 4);
  EXPECT_THAT(snapshot->jobs, SizeIs(1));
  EXPECT_THAT(snapshot->checkpoints, SizeIs(1));
  ASSERT_THAT(snapshot->changes, SizeIs(2));
  EXPECT_FALSE(snapshot->changes[1].job.has_value());
  EXPECT_THAT(*store->ListEvents("n1", 0, 10), SizeIs(1));
  EXPECT_THAT(*store->ListEvents("n1", 1, 10), SizeIs(0));
  EXPECT_EQ((*store->FindRequest("r"))->response, "answer");
  EXPECT_FALSE(store->FindRequest("other")->has_value());
}

TEST_F(JobStoreTest, DeletingAJobTakesItsCheckpointsAndEventsAlong) {
  auto store = Open();
  WriteBatch batch;
  batch.put_jobs = {Record("u1", "n1"), Record("u2", "n2")};
  batch.events = {EventOf(1, "n1"), EventOf(2, "n2")};
  ASSERT_TRUE(store->Commit(batch).ok());
  WriteBatch removal;
  removal.delete_jobs = {"u1"};
  ASSERT_TRUE(store->Commit(removal).ok());
  EXPECT_THAT(store->Load()->jobs, SizeIs(1));
  EXPECT_THAT(*store->ListEvents("n1", 0, 10), SizeIs(0));
  EXPECT_THAT(*store->ListEvents("n2", 0, 10), SizeIs(1));
}

TEST_F(JobStoreTest, DeletingANodeTakesItsEventsAlong) {
  auto store = Open();
  WriteBatch batch;
  for (const char* name : {"nodes/a", "nodes/b"})
    batch.put_nodes.emplace_back().mutable_node()->set_name(name);
  batch.events = {EventOf(1, "nodes/a"), EventOf(2, "nodes/b")};
  ASSERT_TRUE(store->Commit(batch).ok());
  WriteBatch removal;
  removal.delete_nodes = {"nodes/a"};
  ASSERT_FALSE(removal.empty());
  ASSERT_TRUE(store->Commit(removal).ok());
  ASSERT_THAT(store->Load()->nodes, SizeIs(1));
  EXPECT_EQ(store->Load()->nodes[0].node().name(), "nodes/b");
  EXPECT_THAT(*store->ListEvents("nodes/a", 0, 10), SizeIs(0));
  EXPECT_THAT(*store->ListEvents("nodes/b", 0, 10), SizeIs(1));
}

TEST_F(JobStoreTest, ABatchThatCannotBeWrittenLeavesNothing) {
  auto store = Open();
  WriteBatch batch;
  batch.put_jobs = {Record("u1", "n1")};
  batch.events = {EventOf(1, "n1"), EventOf(1, "n1")};  // the same place twice
  EXPECT_FALSE(store->Commit(batch).ok());
  EXPECT_THAT(store->Load()->jobs, SizeIs(0));
}

TEST_F(JobStoreTest, RefusesADamagedFileAndAnotherProgramsFile) {
  { Open(); }
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) / 2);
  std::filesystem::remove(path_ + "-wal");
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(100);
    file << std::string(3000, '\xff');
  }
  EXPECT_EQ(SqliteJobStore::Open(path_, "test").status().code(), absl::StatusCode::kDataLoss);
  std::ofstream(path_, std::ios::trunc) << std::string(8192, 'x');
  EXPECT_EQ(SqliteJobStore::Open(path_, "test").status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(JobStoreTest, RefusesAStoreOfANewerVersion) {
  { Open(); }
  sqlite3* raw = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &raw), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(raw, "PRAGMA user_version=99", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(raw);
  EXPECT_THAT(SqliteJobStore::Open(path_, "test").status().message(), HasSubstr("schema 99"));
}

TEST(JobBookTest, AFailedCommitLeavesMemoryAsTheStoreIs) {
  MemoryJobStore store;
  SystemClock clock;
  JobBook book(store, clock);
  StoreSnapshot snapshot;
  ASSERT_TRUE(book.Load(&snapshot).ok());
  store::v1::JobRecord record;
  record.mutable_job()->set_uid("u");
  record.mutable_job()->set_name("n");
  record.mutable_job()->set_state(v1::JOB_STATE_QUEUED);
  book.Add(record);
  ASSERT_TRUE(book.Commit().ok());
  store.FailCommits(1);
  v1::StateReason reason;
  book.Move("u", v1::JOB_STATE_RESERVED, reason, "AttemptReserved");
  EXPECT_EQ(book.Commit().status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(book.Find("u")->job().state(), v1::JOB_STATE_QUEUED);
  EXPECT_FALSE(book.dirty());
  EXPECT_TRUE(store.events().empty());
}

TEST(JobBookTest, ANodeIsRemovedWithTheCommitUnlessItComesBackBefore) {
  MemoryJobStore store;
  SystemClock clock;
  JobBook book(store, clock);
  store::v1::NodeRecord record;
  record.mutable_node()->set_name("nodes/a");
  book.PutNode(record);
  ASSERT_TRUE(book.Commit().ok());
  store.FailCommits(1);
  book.RemoveNode("nodes/a");
  EXPECT_FALSE(book.Commit().ok());
  EXPECT_THAT(book.nodes(), SizeIs(1)) << "as the store has it";
  EXPECT_FALSE(book.dirty());

  book.RemoveNode("nodes/a");
  book.PutNode(record);
  EXPECT_THAT(book.Commit()->removed_nodes, SizeIs(0));
  EXPECT_THAT(store.Load()->nodes, SizeIs(1));
  book.AddEvent("nodes/a", 0, "NodeLost", v1::EVENT_SEVERITY_WARNING, "");
  book.RemoveNode("nodes/a");
  EXPECT_THAT(book.Commit()->removed_nodes, testing::ElementsAre("nodes/a"));
  EXPECT_THAT(store.Load()->nodes, SizeIs(0));
  EXPECT_TRUE(store.events().empty());
}

TEST(JobStateTest, TerminalStatesAreLeftByRetryOnly) {
  for (int from = v1::JOB_STATE_QUEUED; from <= v1::JOB_STATE_CANCELLED; ++from) {
    for (int to = v1::JOB_STATE_QUEUED; to <= v1::JOB_STATE_CANCELLED; ++to) {
      const auto a = static_cast<v1::JobState>(from), b = static_cast<v1::JobState>(to);
      if (!IsTerminal(a) || !IsLegalTransition(a, b)) continue;
      EXPECT_EQ(b, v1::JOB_STATE_QUEUED);
      EXPECT_NE(a, v1::JOB_STATE_SUCCEEDED);
    }
  }
}

TEST(JobStateTest, EveryStateThatHoldsSlotsCanBeCancelled) {
  for (int from = v1::JOB_STATE_QUEUED; from <= v1::JOB_STATE_CANCELLED; ++from) {
    const auto state = static_cast<v1::JobState>(from);
    if (!HoldsSlots(state) || state == v1::JOB_STATE_CANCELLING) continue;
    EXPECT_TRUE(IsLegalTransition(state, v1::JOB_STATE_CANCELLING)) << StateName(state);
  }
}

}  // namespace
}  // namespace switchyard::coordinator
