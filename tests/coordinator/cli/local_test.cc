#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>

#include "common/unique_fd.h"
#include "coordinator/cli/daemon.h"
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
  std::vector<Daemon> Recorded() const { return *ReadDaemons(State() + "/up.json"); }
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

TEST_F(LocalTest, UpIsRefusedWhereAnotherCoordinatorAnswers) {
  ASSERT_EQ(Up(), 0) << err;
  EXPECT_EQ(Run({"up", "--state-dir", directory + "/other", "--bin-dir", directory}), 2);
  EXPECT_THAT(err, AllOf(HasSubstr("a coordinator answers at " + server.address()),
                         HasSubstr("--coordinator")));
  EXPECT_FALSE(std::filesystem::exists(directory + "/other/up.json"));
  for (const Daemon& daemon : Recorded()) EXPECT_TRUE(IsRunning(daemon));
}

TEST_F(LocalTest, UpTellsWhyADaemonEndedAndLeavesNothingBehind) {
  const UniqueFd taken(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(server.port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(taken.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(taken.get(), 1), 0);
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
  ASSERT_TRUE(WriteDaemons(State() + "/up.json", {other}).ok());
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
