#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>

#include "common/file_lock.h"
#include "common/unique_fd.h"
#include "coordinator/cli/up_record.h"
#include "tests/coordinator/cli/cli_fixture.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// `up` with stand-ins for the daemons.
class LocalTest : public CliTest {
 protected:
  LocalTest() {
    server.Stop();  // its port is free now, and the stand-in takes it
    for (const char* name : {"switchyard-coordinator", "switchyard-agent"}) {
      std::filesystem::create_symlink(
          std::string(std::getenv("SWITCHYARD_BINARY_DIR")) + "/bin/cli_fake_daemon",
          directory + "/" + name);
    }
  }
  ~LocalTest() override { Run({"down", "--state-dir", State()}); }

  std::string State() const { return directory + "/state"; }
  int Up() {
    return Run({"up", "--state-dir", State(), "--bin-dir", directory, "--cpu-slots", "3",
                "--output", "json"});
  }
  std::vector<Daemon> Recorded() const { return ReadUpRecord(State() + "/up.json")->daemons; }

  // Dies as it would by a crash, and is gone afterwards.
  static void Kill(const Daemon& daemon) {
    ASSERT_EQ(kill(daemon.pid, SIGKILL), 0);
    while (IsRunning(daemon)) usleep(1000);
  }
  static std::string CommandLine(const Daemon& daemon) {
    std::ifstream in("/proc/" + std::to_string(daemon.pid) + "/cmdline");
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // Somebody else at the port of the coordinator.
  UniqueFd TakePort() const {
    UniqueFd taken(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int yes = 1;
    setsockopt(taken.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server.port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    // The kernel may still be closing the socket of a coordinator that was killed just now.
    int bound = -1;
    for (int i = 0; i < 5000 && bound != 0; ++i) {
      bound = bind(taken.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
      if (bound != 0) usleep(1000);
    }
    EXPECT_EQ(bound, 0);
    EXPECT_EQ(listen(taken.get(), 1), 0);
    return taken;
  }
};

TEST_F(LocalTest, UpStartsBothDetachedAndDownStopsThem) {
  ASSERT_EQ(Up(), 0) << err;
  const auto document = nlohmann::json::parse(out);
  EXPECT_EQ(document["daemons"][0]["address"], server.address());
  const std::vector<Daemon> daemons = Recorded();
  ASSERT_EQ(daemons.size(), 2u);
  for (const Daemon& daemon : daemons) {
    EXPECT_TRUE(IsRunning(daemon));
    EXPECT_EQ(getsid(daemon.pid), daemon.pid) << daemon.name << " is not detached";
  }
  EXPECT_THAT(LastLines(daemons[1].log, 5), testing::Contains("agent with 3 slots"));
  EXPECT_EQ(Run({"down", "--state-dir", State()}), 0) << err;
  EXPECT_THAT(out, HasSubstr("Stopped."));
  for (const Daemon& daemon : daemons) EXPECT_FALSE(IsRunning(daemon));
  EXPECT_EQ(Run({"down", "--state-dir", State()}), 0);
  EXPECT_THAT(out, HasSubstr("Nothing was up"));
}

TEST_F(LocalTest, ASecondUpIsRefusedAndHarmsNothing) {
  ASSERT_EQ(Up(), 0) << err;
  EXPECT_EQ(Up(), 2);
  EXPECT_THAT(err, AllOf(HasSubstr("already up"),
                         HasSubstr("`switchyard down --state-dir " + State() + "`")));
  for (const Daemon& daemon : Recorded()) EXPECT_TRUE(IsRunning(daemon));
}

TEST_F(LocalTest, OneUpOrDownIsAtWorkInADirectory) {
  std::filesystem::create_directory(State());
  auto lock = TryLockFile(State() + "/up.lock", 0600);
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_EQ(Run({"down", "--state-dir", State()}), 2);
  EXPECT_THAT(err, HasSubstr("another `switchyard up` or `down` is at work in " + State()));
  lock->Reset();
  EXPECT_EQ(Run({"down", "--state-dir", State()}), 0) << err;
}

TEST_F(LocalTest, UpTellsHowToStopWhatItStartedInItsStateDirectory) {
  EXPECT_EQ(Run({"up", "--state-dir", State(), "--bin-dir", directory, "--cpu-slots", "1"}), 0)
      << err;
  EXPECT_THAT(out, HasSubstr("Stop both with: switchyard down --state-dir " + State() + "\n"));
  EXPECT_EQ(Run({"down", "--state-dir", State()}), 0) << err;
  EXPECT_THAT(out, HasSubstr("after `switchyard up --state-dir " + State() + "`"));

  setenv("XDG_STATE_HOME", directory.c_str(), 1);
  EXPECT_EQ(Run({"up", "--bin-dir", directory, "--cpu-slots", "1"}), 0) << err;
  EXPECT_THAT(out, HasSubstr("Stop both with: switchyard down\n"));
  EXPECT_EQ(Run({"down"}), 0) << err;
  unsetenv("XDG_STATE_HOME");
}

TEST_F(LocalTest, UpStartsTheOneThatDiedAsItWasAndLeavesTheOther) {
  ASSERT_EQ(Up(), 0) << err;
  for (const size_t dead : {0u, 1u}) {
    const std::vector<Daemon> before = Recorded();
    SCOPED_TRACE(before[dead].name);
    const std::string command = CommandLine(before[dead]);
    Kill(before[dead]);
    ASSERT_EQ(Run({"up", "--state-dir", State()}), 0) << err;
    EXPECT_THAT(out, HasSubstr("The " + before[1 - dead].name + " was up; started the " +
                               before[dead].name + " again"));
    const std::vector<Daemon> after = Recorded();
    ASSERT_EQ(after.size(), 2u);
    EXPECT_EQ(after[1 - dead].pid, before[1 - dead].pid);
    EXPECT_TRUE(IsRunning(after[1 - dead]));
    EXPECT_NE(after[dead].pid, before[dead].pid);
    EXPECT_TRUE(IsRunning(after[dead]));
    EXPECT_EQ(after[dead].name, before[dead].name);
    EXPECT_EQ(CommandLine(after[dead]), command);
  }
  EXPECT_EQ(Up(), 2);  // both live again
  EXPECT_THAT(err, HasSubstr("already up"));
}

TEST_F(LocalTest, AnUpThatCannotStartTheDeadOneHarmsNeitherTheOtherNorTheRecord) {
  ASSERT_EQ(Up(), 0) << err;
  const std::vector<Daemon> before = Recorded();
  Kill(before[0]);
  {
    const UniqueFd taken = TakePort();
    EXPECT_EQ(Run({"up", "--state-dir", State()}), 2);
    EXPECT_THAT(err, HasSubstr("the coordinator ended at once"));
  }
  ASSERT_EQ(Recorded().size(), 2u);
  EXPECT_EQ(Recorded()[1].pid, before[1].pid);
  EXPECT_TRUE(IsRunning(before[1]));
  EXPECT_EQ(Run({"up", "--state-dir", State()}), 0) << err;
}

TEST_F(LocalTest, UpIsRefusedWhereAnotherCoordinatorAnswers) {
  ASSERT_EQ(Up(), 0) << err;
  EXPECT_EQ(Run({"up", "--state-dir", directory + "/other", "--bin-dir", directory}), 2);
  EXPECT_THAT(err, AllOf(HasSubstr("a coordinator answers at " + server.address()),
                         HasSubstr("--coordinator")));
  EXPECT_FALSE(std::filesystem::exists(directory + "/other/up.json"));
  for (const Daemon& daemon : Recorded()) EXPECT_TRUE(IsRunning(daemon));
}

TEST_F(LocalTest, UpTellsWhyADaemonEndedAndLeavesNothingBehind) {
  const UniqueFd taken = TakePort();
  EXPECT_EQ(Up(), 2);
  EXPECT_THAT(err, AllOf(HasSubstr("the coordinator ended at once"), HasSubstr("is taken")));
  EXPECT_TRUE(Recorded().empty());
}

TEST_F(LocalTest, UpNamesAMissingProgram) {
  EXPECT_EQ(Run({"up", "--state-dir", State(), "--bin-dir", "/nowhere"}), 2);
  EXPECT_THAT(err,
              HasSubstr("cannot start /nowhere/switchyard-coordinator: No such file or directory"));
}

TEST_F(LocalTest, DownNeverSignalsAProcessThatOnlyHasARecordedPid) {
  std::filesystem::create_directories(State());
  Daemon other;
  other.name = "coordinator";
  other.pid = getppid();
  other.start_ticks = 1;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), other.boot_id);
  ASSERT_TRUE(WriteUpRecord(State() + "/up.json", {.options = {}, .daemons = {other}}).ok());
  EXPECT_EQ(Run({"down", "--state-dir", State()}), 0);
  EXPECT_THAT(out, HasSubstr("Nothing was up"));
  EXPECT_EQ(kill(getppid(), 0), 0);
}

TEST_F(LocalTest, ARecordThatCannotBeReadIsNamed) {
  std::filesystem::create_directories(State());
  std::ofstream(State() + "/up.json") << "{";
  EXPECT_EQ(Run({"down", "--state-dir", State()}), 2);
  EXPECT_THAT(err, HasSubstr("up.json cannot be read"));
}

}  // namespace
}  // namespace switchyard::coordinator
