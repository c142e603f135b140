#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "worker/trainer/train/control_reader.h"
#include "worker/trainer/train/exit_code.h"
#include "worker/trainer/train/lines.h"
#include "worker/trainer/train/reporter.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

struct Pipe {
  Pipe() {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    read.Reset(ends[0]);
    write.Reset(ends[1]);
  }
  UniqueFd read, write;
};

std::string ReadToEnd(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n = ::read(fd, buffer, sizeof(buffer)); n > 0;
       n = ::read(fd, buffer, sizeof(buffer))) {
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

TEST(LinesTest, NumbersThatJsonLacksAreStrings) {
  StepReport report;
  report.loss = std::numeric_limits<double>::quiet_NaN();
  report.grad_norm = std::numeric_limits<double>::infinity();
  report.phase_seconds = {{"data", 0.5}};
  const json step = json::parse(StepLine(report))["step"];
  EXPECT_EQ(step["loss"], "NaN");
  EXPECT_EQ(step["grad_norm"], "Infinity");
  EXPECT_EQ(step["phase_seconds"]["data"], 0.5);
  EXPECT_EQ(json::parse(EvalLine(3, -std::numeric_limits<double>::infinity(), 1))["eval"]["loss"],
            "-Infinity");
}

TEST(LinesTest, ReadsWhatAgentsSayAndIgnoresWhatItDoesNotKnow) {
  EXPECT_EQ(ParseAgentLine(R"({"rendezvous": {"id": "abc", "more": 1}})").rendezvous_id, "abc");
  EXPECT_TRUE(ParseAgentLine(R"({"checkpoint_now": {"then_stop": true}})").then_stop);
  EXPECT_FALSE(ParseAgentLine(R"({"checkpoint_now": {}})").then_stop);
  EXPECT_EQ(ParseAgentLine(R"({"stop": {"reason": "cancelled"}})").stop_reason, "cancelled");
  for (const char* text :
       {"", "null", "{", R"({"dance": {}})", R"({"stop": 3})", R"({"rendezvous": {"id": 3}})"}) {
    const AgentLine line = ParseAgentLine(text);
    EXPECT_FALSE(line.stop || line.checkpoint_now || line.rendezvous_id.has_value()) << text;
  }
}

TEST(ReporterTest, DropsMetricsButNeverLifecycleLinesWhenNobodyReads) {
  Pipe pipe;
  std::string text;
  const int lines = 4000;  // far more than a pipe holds
  const std::string filler(100, 'x');
  std::thread reader;
  {
    Reporter reporter(UniqueFd(dup(pipe.write.get())));
    pipe.write.Reset();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < lines; ++i) {
      reporter.Metric("metric " + filler);
      reporter.Lifecycle("lifecycle " + filler);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2))
        << "training was blocked";
    EXPECT_GT(reporter.dropped(), 0);
    reader = std::thread([&] { text = ReadToEnd(pipe.read.get()); });
  }
  reader.join();
  int lifecycle = 0;
  for (size_t at = text.find("lifecycle"); at != std::string::npos;
       at = text.find("lifecycle", at + 1))
    ++lifecycle;
  EXPECT_EQ(lifecycle, lines);
}

void Say(const UniqueFd& fd, const std::string& text) {
  ASSERT_EQ(::write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

TEST(ControlReaderTest, HearsLinesThatArriveInPieces) {
  Pipe pipe;
  ControlReader control(std::move(pipe.read));
  Say(pipe.write, R"({"rendezvous":)");
  Say(pipe.write, "{\"id\":\"t0k\"}}\n{\"checkpoint_now\":{\"then_stop\":true}}\n");
  EXPECT_EQ(control.WaitForRendezvous(std::chrono::seconds(5)), "t0k");
  for (int i = 0; i < 500 && !control.requests().checkpoint; ++i) usleep(2000);
  EXPECT_TRUE(control.requests().checkpoint);
  EXPECT_TRUE(control.requests().stop);
  control.Done({.checkpoint = true, .stop = true});
  EXPECT_FALSE(control.requests().checkpoint);
  EXPECT_FALSE(control.requests().stop);
}

TEST(ControlReaderTest, TheProcessEndsAtOnceWhenItsAgentIsGone) {
  Pipe pipe;
  const pid_t pid = fork();
  if (pid == 0) {
    pipe.write.Reset();
    ControlReader control(std::move(pipe.read));
    pause();
    _exit(0);
  }
  pipe.read.Reset();
  pipe.write.Reset();
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), kAgentGoneExitCode);
}

}  // namespace
}  // namespace switchyard::trainer
