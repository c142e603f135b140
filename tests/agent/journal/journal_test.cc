#include "worker/agent/journal/journal.h"

#include <gtest/gtest.h>

#include "tests/agent/support/temporary_directory.h"

namespace switchyard::agent {
namespace {

v1::AttemptStatus Result(const std::string& job, int64_t epoch) {
  v1::AttemptStatus result;
  result.set_job_uid(job);
  result.set_epoch(epoch);
  result.set_state(v1::ATTEMPT_STATE_ENDED);
  result.set_first_failed_rank(0);
  auto* rank = result.add_ranks();
  rank->set_exit_code(139);
  rank->add_log_tail("not valid UTF-8 is kept out by protobuf, \"quotes\" are not");
  return result;
}

TEST(JournalTest, GivesBackWhatWasWrittenUntilItIsRemoved) {
  TemporaryDirectory dir;
  {
    auto journal = Journal::Open(dir / "deep/journal");
    ASSERT_TRUE(journal.ok());
    ASSERT_TRUE(journal->Write(Result("job", 1)).ok());
    ASSERT_TRUE(journal->Write(Result("job", 2)).ok());
    ASSERT_TRUE(journal->Write(Result("job", 2)).ok());
    journal->Remove({"job", 1});
    journal->Remove({"job", 1});
    ASSERT_TRUE(journal->SetStoreId("store-1").ok());
  }
  auto journal = Journal::Open(dir / "deep/journal");
  const auto results = journal->Load();
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].SerializeAsString(), Result("job", 2).SerializeAsString());
  EXPECT_EQ(journal->StoreId(), "store-1");
}

TEST(JournalTest, SetsDamagedFilesAsideAndLoadsTheRest) {
  TemporaryDirectory dir;
  auto journal = Journal::Open(dir / "journal");
  ASSERT_TRUE(journal->Write(Result("good", 1)).ok());
  dir.Write("journal/torn.1.json", "{\"job_uid\": \"torn\", ");
  dir.Write("journal/liar.1.json", R"({"job_uid": "someone-else", "epoch": "1"})");
  dir.Write("journal/escape.1.json", R"({"job_uid": "../../etc", "epoch": "1"})");
  dir.Write("journal/unfinished.2.json.tmp", "half");
  const auto results = journal->Load();
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].job_uid(), "good");
  EXPECT_TRUE(std::filesystem::exists(dir / "journal/torn.1.json.corrupt"));
  EXPECT_EQ(journal->Load().size(), 1u);
}

TEST(JournalTest, ADirectoryThatCannotBeWrittenIsAnErrorThatNamesIt) {
  TemporaryDirectory dir;
  dir.Write("file", "in the way");
  const auto journal = Journal::Open(dir / "file/journal");
  ASSERT_FALSE(journal.ok());
  EXPECT_NE(journal.status().message().find(dir / "file/journal"), absl::string_view::npos);
}

}  // namespace
}  // namespace switchyard::agent
