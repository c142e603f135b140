// One holder at a time, until it closes or ends.
#include "common/file_lock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <future>

#include "tests/agent/support/temporary_directory.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

class FileLock : public ::testing::Test {
 protected:
  agent::TemporaryDirectory dir_;
  const std::string path_ = dir_ / "lock";
};

TEST_F(FileLock, HasOneHolder) {
  auto first = TryLockFile(path_, 0600);
  ASSERT_TRUE(first.ok()) << first.status();
  struct stat made {};
  ASSERT_EQ(stat(path_.c_str(), &made), 0);
  EXPECT_EQ(made.st_mode & 0777, 0600U);
  EXPECT_EQ(fcntl(first->get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  const auto second = TryLockFile(path_, 0600);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(path_));
  EXPECT_TRUE(TryLockFile(dir_ / "other", 0600).ok());
  first->Reset();
  EXPECT_TRUE(TryLockFile(path_, 0600).ok());
}

TEST_F(FileLock, IsFreeWhenItsHolderEndedHoweverItEnded) {
  int ready[2];
  ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
  const UniqueFd wait(ready[0]);
  UniqueFd say(ready[1]);
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = TryLockFile(path_, 0600);
    if (write(say.get(), lock.ok() ? "+" : "-", 1) == 1) pause();
    _exit(1);
  }
  char said = 0;
  ASSERT_EQ(read(wait.get(), &said, 1), 1);
  EXPECT_EQ(said, '+');
  EXPECT_TRUE(absl::IsFailedPrecondition(TryLockFile(path_, 0600).status()));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(TryLockFile(path_, 0600).ok());
}

TEST_F(FileLock, IsWaitedForWhereThatIsAsked) {
  auto first = TryLockFile(path_, 0600);
  ASSERT_TRUE(first.ok()) << first.status();
  std::promise<void> asked;
  auto second = std::async(std::launch::async, [&] {
    asked.set_value();
    return LockFile(path_, 0600).status();
  });
  asked.get_future().wait();
  EXPECT_EQ(second.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  first->Reset();
  EXPECT_EQ(second.get(), absl::OkStatus());
}

TEST_F(FileLock, OfAFileThatCannotBeMadeNamesIt) {
  const auto lock = TryLockFile(dir_ / "missing/lock", 0600);
  EXPECT_TRUE(absl::IsNotFound(lock.status())) << lock.status();
  EXPECT_THAT(std::string(lock.status().message()), HasSubstr("cannot open " + dir_.path()));
}

}  // namespace
}  // namespace switchyard
