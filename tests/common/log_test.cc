#include "common/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace switchyard::log {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class LogTest : public ::testing::Test {
 protected:
  // What `write` writes with these variables.
  static std::string With(const char* format, const char* level, void (*write)()) {
    setenv("SWITCHYARD_LOG_FORMAT", format, 1);
    setenv("SWITCHYARD_LOG_LEVEL", level, 1);
    ConfigureFromEnvironment(&problem);
    testing::internal::CaptureStderr();
    write();
    return testing::internal::GetCapturedStderr();
  }
  void TearDown() override {
    unsetenv("SWITCHYARD_LOG_FORMAT");
    unsetenv("SWITCHYARD_LOG_LEVEL");
    ConfigureFromEnvironment(&problem);
  }
  static inline std::string problem;
};

TEST_F(LogTest, ALineIsOneJsonObject) {
  const auto line = nlohmann::json::parse(With("", "", [] {
    Info("job.accepted", {{"job", "a \"b\"\n"}, {"ranks", 8}});
  }));
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["event"], "job.accepted");
  EXPECT_EQ(line["job"], "a \"b\"\n");
  EXPECT_EQ(line["ranks"], 8);
  EXPECT_THAT(line["time"].get<std::string>(), MatchesRegex("....-..-..T..:..:..\\.......Z"));
}

TEST_F(LogTest, TextIsForPeopleAndStaysOneLine) {
  const std::string text = With("text", "", [] {
    Warning("job.accepted", {{"job", "a"}, {"why", "two words\nand a line"}, {"ranks", 8}});
  });
  EXPECT_THAT(text,
              EndsWith("Z WARNING job.accepted job=a why=\"two words\\nand a line\" ranks=8\n"));
}

TEST_F(LogTest, TheLevelDropsWhatIsBelow) {
  EXPECT_EQ(With("", "warning", [] { Info("a.b"); }), "");
  EXPECT_THAT(With("", "debug", [] { Debug("a.b"); }), HasSubstr("debug"));
}

TEST_F(LogTest, AnotherValueIsAProblemThatNamesTheVariable) {
  With("xml", "", [] {});
  EXPECT_EQ(problem, "SWITCHYARD_LOG_FORMAT is \"xml\"; give json or text");
  With("", "loud", [] {});
  EXPECT_THAT(problem, HasSubstr("SWITCHYARD_LOG_LEVEL is \"loud\""));
}

}  // namespace
}  // namespace switchyard::log
