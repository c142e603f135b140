#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/agent/support/temporary_directory.h"
#include "worker/agent/log/log_file.h"
#include "worker/agent/log/log_spool.h"
#include "worker/agent/process/line_reader.h"

namespace switchyard::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(LogFileTest, ReadsBackByOffsetAcrossARotation) {
  TemporaryDirectory dir;
  auto log = LogFile::Open(dir / "rank-0.log", 100);
  ASSERT_TRUE(log.ok());
  std::string all;
  for (int i = 0; i < 15; ++i) {
    const std::string line = "line " + std::to_string(100 + i) + "\n";  // 9 bytes
    all += line;
    ASSERT_TRUE(log->Append(line));
  }
  EXPECT_EQ(log->end(), 135);
  EXPECT_EQ(log->begin(), 0);  // one rotation: nothing lost yet
  std::string read;
  while (static_cast<int64_t>(read.size()) < log->end())
    read += log->Read(static_cast<int64_t>(read.size()), 30);
  EXPECT_EQ(read, all);
  EXPECT_THAT(log->Tail(2, 6), ElementsAre("line 1", "line 1"));
  EXPECT_THAT(log->Tail(2, 99), ElementsAre("line 113", "line 114"));
}

TEST(LogFileTest, KeepsTwoPartsAndForgetsWhatIsOlder) {
  TemporaryDirectory dir;
  auto log = LogFile::Open(dir / "rank-0.log", 100);
  ASSERT_TRUE(log.ok());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(log->Append("0123456789"));
  EXPECT_EQ(log->end(), 1000);
  EXPECT_EQ(log->begin(), 800);
  EXPECT_EQ(log->Read(805, 5), "56789");
  EXPECT_EQ(std::filesystem::file_size(dir / "rank-0.log"), 100u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 2);
}

TEST(LogFileTest, TheTailIsUtf8WhateverWasWritten) {
  TemporaryDirectory dir;
  auto log = LogFile::Open(dir / "rank-0.log", 1000);
  ASSERT_TRUE(log.ok());
  ASSERT_TRUE(log->Append("bad \xFF byte\n\xE2\x96\x88\xE2\x96\x88\n"));
  const auto tail = log->Tail(2, 10);
  EXPECT_THAT(log->Tail(2, 10), ElementsAre("bad \xEF\xBF\xBD byte", "\xE2\x96\x88\xE2\x96\x88"));
  EXPECT_THAT(log->Tail(1, 4), ElementsAre("\xE2\x96\x88\xEF\xBF\xBD")) << "cut in a character";
}

class LogSpoolTest : public ::testing::Test {
 protected:
  LogSpoolTest() : spool(dir.path(), 1 << 20) {
    for (int rank : {0, 1}) {
      std::filesystem::create_directories(AttemptDir(dir.path(), attempt));
      EXPECT_TRUE(spool.Open({attempt, rank}).ok());
    }
  }
  v1::LogAck Ack(int rank, int64_t offset) {
    v1::LogAck ack;
    ack.set_job_uid("job");
    ack.set_epoch(1);
    ack.set_rank(rank);
    ack.set_offset(offset);
    return ack;
  }
  TemporaryDirectory dir;
  AttemptKey attempt{"job", 1};
  LogSpool spool;
};

TEST_F(LogSpoolTest, SendsRanksInTurnsAndStopsAtTheWindow) {
  spool.Append({attempt, 0}, std::string(700 << 10, 'a'));
  spool.Append({attempt, 1}, "short");
  const auto first = spool.Next();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->text().size(), static_cast<size_t>(LogSpool::kChunkBytes));
  EXPECT_EQ(spool.Next()->text(), "short");
  int chunks = 1;
  while (spool.Next().has_value()) ++chunks;
  EXPECT_EQ(chunks, LogSpool::kWindowBytes / LogSpool::kChunkBytes);
  EXPECT_FALSE(spool.Sent(attempt));
  spool.OnAck(Ack(0, LogSpool::kChunkBytes));
  EXPECT_EQ(spool.Next()->offset(), LogSpool::kWindowBytes);
}

TEST_F(LogSpoolTest, GoesOnFromTheAcknowledgedOffsetInANewSession) {
  spool.Append({attempt, 0}, "0123456789");
  EXPECT_EQ(spool.Next()->offset(), 0);
  EXPECT_TRUE(spool.Sent(attempt));
  spool.OnAck(Ack(0, 4));
  spool.OnSessionLost();
  EXPECT_FALSE(spool.Sent(attempt));
  const auto again = spool.Next();
  EXPECT_EQ(again->offset(), 4);
  EXPECT_EQ(again->text(), "456789");
  EXPECT_FALSE(spool.Stored(attempt));
  spool.OnAck(Ack(0, 10));
  EXPECT_TRUE(spool.Stored(attempt));
}

TEST_F(LogSpoolTest, IgnoresAcknowledgementsBackwardsBeyondTheEndAndOfStrangers) {
  spool.Append({attempt, 0}, "0123456789");
  spool.OnAck(Ack(0, 6));
  spool.OnAck(Ack(0, 2));
  spool.OnAck(Ack(7, 2));
  EXPECT_EQ(spool.Next()->offset(), 6);
  spool.OnAck(Ack(0, 1000));
  spool.Append({attempt, 0}, "x");
  EXPECT_EQ(spool.Next()->offset(), 10);
}

TEST_F(LogSpoolTest, FilesStayWhenTheAttemptIsClosed) {
  spool.Append({attempt, 0}, "kept\n");
  spool.Close(attempt);
  EXPECT_FALSE(spool.Next().has_value());
  EXPECT_EQ(dir.Read("attempts/job/1/rank-0.log"), "kept\n");
}

TEST(LineReaderTest, JoinsPartsAndDropsLinesAboveTheBoundWhole) {
  LineReader reader(8);
  std::vector<std::string> lines;
  int too_long = 0;
  const auto feed = [&](const std::string& bytes) {
    reader.Feed(
        bytes, [&](absl::string_view line) { lines.emplace_back(line); }, [&] { ++too_long; });
  };
  feed("on");
  feed("e\ntwo\n\n12345678\n123456789");
  feed("0 still the same\nend");
  EXPECT_THAT(lines, ElementsAre("one", "two", "12345678"));
  EXPECT_EQ(too_long, 1);
  feed("\n");
  EXPECT_EQ(lines.back(), "end");
}

}  // namespace
}  // namespace switchyard::agent
