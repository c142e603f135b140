#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/cli/doctor_checks.h"

namespace switchyard::coordinator {
namespace {

using ::testing::HasSubstr;

v1::Node NodeOf(const std::string& name, const std::string& version, v1::NodeState state) {
  v1::Node node;
  node.set_name("nodes/" + name);
  node.set_agent_version(version);
  node.set_state(state);
  return node;
}

TEST(DoctorChecksTest, OneVersionEverywhereIsOk) {
  const auto checks =
      CheckVersions("1.2.0", {"1.2.0", {}, {}}, {NodeOf("a", "1.2.0", v1::NODE_STATE_READY)});
  ASSERT_EQ(checks.size(), 1u);
  EXPECT_EQ(checks[0].health, Health::kOk);
}

TEST(DoctorChecksTest, AnAgentOfAnotherVersionIsNamedUnlessItIsLost) {
  const auto checks = CheckVersions(
      "1.2.0", {"1.2.0", {}, {}},
      {NodeOf("old", "1.1.0", v1::NODE_STATE_READY), NodeOf("gone", "0.9.0", v1::NODE_STATE_LOST)});
  ASSERT_EQ(checks.size(), 1u);
  EXPECT_EQ(checks[0].health, Health::kWarning);
  EXPECT_THAT(checks[0].message, HasSubstr("the agents on old are 1.1.0"));
  EXPECT_THAT(checks[0].fix, HasSubstr("coordinator first"));
}

TEST(DoctorChecksTest, ACoordinatorThatDoesNotAnswerGetsTheAdviceOfEveryCommand) {
  const HealthCheck silent =
      CheckUnanswered(absl::UnavailableError("no coordinator answers\n  Start one.\n  Is --ca?"));
  EXPECT_EQ(silent.message, "no coordinator answers");
  EXPECT_EQ(silent.fix, "Start one. Is --ca?");
  const HealthCheck refused = CheckUnanswered(absl::PermissionDeniedError("not yours"));
  EXPECT_EQ(refused.message, "not yours");
  EXPECT_THAT(refused.fix, HasSubstr("refused"));
}

TEST(DoctorChecksTest, AClockIsWrongOnlyBeyondWhatTheRoundTripHides) {
  EXPECT_EQ(CheckSkew({"", absl::Seconds(-3), absl::Seconds(2)}).health, Health::kOk);
  const HealthCheck wrong = CheckSkew({"", absl::Seconds(-3), absl::Milliseconds(5)});
  EXPECT_EQ(wrong.health, Health::kFailed);
  EXPECT_EQ(wrong.message, "the coordinator's clock is 3.000 s behind this one's (+- 0.005 s)");
}

TEST(DoctorChecksTest, ALostNodeSaysSinceWhenAndHowItIsForgotten) {
  v1::Node lost = NodeOf("a", "1", v1::NODE_STATE_LOST);
  lost.mutable_last_heartbeat_time()->set_seconds(1000);
  const auto checks = CheckNodes({lost}, absl::FromUnixSeconds(1090));
  EXPECT_THAT(checks[0].message, HasSubstr("a was last heard 1 m 30 s ago"));
  EXPECT_THAT(checks[0].fix, HasSubstr("`switchyard node forget a`"));
  EXPECT_THAT(checks[1].message, HasSubstr("0 of 1"));
  EXPECT_EQ(CheckNodes({NodeOf("b", "1", v1::NODE_STATE_LOST)}, absl::Now())[0].message,
            "b has not been heard since the coordinator started");
}

TEST(DoctorChecksTest, ACertificateIsWarnedOfAWeekBeforeItsEnd) {
  security::CertificateInfo certificate;
  const absl::Time now = absl::FromUnixSeconds(1000000);
  certificate.not_after = now + absl::Hours(24 * 30);
  EXPECT_EQ(CheckCertificate("d", certificate, now).health, Health::kOk);
  certificate.not_after = now + absl::Hours(24 * 3);
  EXPECT_EQ(CheckCertificate("d", certificate, now).health, Health::kWarning);
  certificate.not_after = now - absl::Hours(1);
  EXPECT_EQ(CheckCertificate("d", certificate, now).health, Health::kFailed);
  EXPECT_EQ(CheckCertificate("d", absl::NotFoundError("d/tls.crt"), now).health, Health::kFailed);
}

TEST(HealthTextTest, EachFixStandsUnderItsCheckAndTheLastLineCounts) {
  const std::string text = HealthText(
      {{"disk", Health::kWarning, "little room", "make room"}, {"clock", Health::kOk, "right", ""}},
      false);
  EXPECT_EQ(text,
            "warning disk           little room\n"
            "                       -> make room\n"
            "ok      clock          right\n"
            "\n0 failures, 1 warning.\n");
}

TEST(HealthJsonTest, WhatIsWrittenIsRead) {
  const auto checks = ParseHealthJson(HealthJson({{"a", Health::kSkipped, "m \"x\"\n", "f"}}));
  ASSERT_TRUE(checks.ok());
  EXPECT_EQ((*checks)[0].health, Health::kSkipped);
  EXPECT_EQ((*checks)[0].message, "m \"x\"\n");
  for (const char* bad : {"", "[]", "{\"checks\": [1]}", "{\"checks\": [{\"name\": \"a\"}]}"})
    EXPECT_FALSE(ParseHealthJson(bad).ok()) << bad;
}

}  // namespace
}  // namespace switchyard::coordinator
