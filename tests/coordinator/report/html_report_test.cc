#include "coordinator/report/html_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>

#include "coordinator/report/chart_scale.h"
#include "coordinator/report/html_text.h"
#include "coordinator/report/line_chart.h"
#include "tests/coordinator/report/demo_report.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// What stands between the style sheet and the script: all that is made from the input.
std::string Body(const std::string& page) {
  const size_t begin = page.find("<main>");
  return page.substr(begin, page.rfind("<script>") - begin);
}

std::string CardOf(const std::string& page, const std::string& title) {
  const size_t begin = page.find("<h2>" + title + "</h2>");
  EXPECT_NE(begin, std::string::npos) << title;
  return begin == std::string::npos ? ""
                                    : page.substr(begin, page.find("</section>", begin) - begin);
}

// The first tag that is closed in the wrong place, or empty.
std::string FirstUnbalancedTag(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    if (html[end - 1] == '/') continue;
    const bool closes = html[at + 1] == '/';
    const size_t name_at = at + (closes ? 2 : 1);
    const std::string name = html.substr(name_at, html.find_first_of(" >", name_at) - name_at);
    if (!closes) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return html.substr(at, end - at + 1);
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back();
}

TEST(HtmlReportTest, ShowsEverySectionOfAFinishedJob) {
  const std::string page = RenderHtmlReport(DemoReport());
  for (const char* text :
       {"foldoc-qa", "SUCCEEDED", "Held-out loss", "9.0700 before training", "Throughput",
        "Load-balancing loss</span><b>1.0513</b>", "96 % of predicted", "saved activations",
        "measured peak", "reduce gradients", "layer 3, expert 17: 0 tokens", "RankFailed",
        "expert_parallel 1 is predicted to be slower", "/data/foldoc/train.jsonl"}) {
    EXPECT_THAT(page, HasSubstr(text));
  }
  EXPECT_EQ(FirstUnbalancedTag(Body(page)), "");
}

TEST(HtmlReportTest, LoadsNothingFromAnywhere) {
  const std::string page = RenderHtmlReport(DemoReport());
  for (const char* loader : {" src=", "<link", "url(", "@import", " href=", "https:"}) {
    EXPECT_THAT(page, Not(HasSubstr(loader)));
  }
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
}

TEST(HtmlReportTest, EscapesWhateverUsersAndNodesWrote) {
  ReportInput input = DemoReport();
  const std::string evil = "<script>alert(1)</script>\"'&\xff";
  input.job.set_name("projects/default/jobs/" + evil);
  input.job.set_state(v1::JOB_STATE_FAILED);
  input.job.mutable_spec()->set_model(evil.substr(0, evil.size() - 1));  // a proto string is UTF-8
  input.job.mutable_reason()->set_message(evil);
  input.job.mutable_reason()->add_evidence(evil);
  input.job.mutable_plan()->mutable_memory(0)->set_name(evil);
  input.job.mutable_plan()->mutable_rejected(0)->set_reason(evil);
  input.job.mutable_plan()->add_warnings(evil);
  (*input.job.mutable_plan()->mutable_defaults())[evil] = evil;
  (*input.samples[0].mutable_phase_seconds())[evil] = 1;
  input.events[0].set_message(evil);
  input.events[0].set_type(evil);
  input.job.mutable_attempts(0)->mutable_placements(0)->set_node(evil);
  const std::string page = RenderHtmlReport(input);
  EXPECT_THAT(page, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\xEF\xBF\xBD"));
  EXPECT_EQ(FirstUnbalancedTag(Body(page)), "");
}

TEST(HtmlReportTest, AJobThatNeverRanHasAPageOfEmptyStates) {
  ReportInput input;
  input.job.set_name("projects/default/jobs/new");
  input.job.set_state(v1::JOB_STATE_QUEUED);
  const std::string page = RenderHtmlReport(input);
  EXPECT_THAT(page,
              AllOf(HasSubstr("No steps were reported."), HasSubstr("No expert load was reported."),
                    HasSubstr("The job has no plan."), HasSubstr("No events."),
                    HasSubstr("never launched")));
  EXPECT_EQ(FirstUnbalancedTag(Body(page)), "");
}

TEST(HtmlReportTest, WhatHasNotEndedRanUntilNow) {
  ReportInput input;
  input.job.set_name("projects/default/jobs/new");
  input.job.set_state(v1::JOB_STATE_RUNNING);
  input.job.mutable_start_time()->set_seconds(1000);
  input.job.mutable_update_time()->set_seconds(1000);
  input.now = absl::FromUnixSeconds(1095);
  for (int epoch = 1; epoch <= 2; ++epoch) {
    auto& attempt = *input.job.add_attempts();
    attempt.set_epoch(epoch);
    attempt.mutable_start_time()->set_seconds(1000 + (epoch - 1) * 50);
  }
  input.job.mutable_attempts(0)->mutable_end_time()->set_seconds(1030);
  std::string page = RenderHtmlReport(input);
  EXPECT_THAT(
      page, AllOf(HasSubstr("<b>1 m 35 s</b>"), HasSubstr(">30 s</td>"), HasSubstr(">45 s</td>")));
  input.job.clear_start_time();
  input.job.clear_attempts();
  page = RenderHtmlReport(input);
  EXPECT_THAT(page, HasSubstr("<b>-</b>"));
}

TEST(HtmlReportTest, NumbersThatAreNotFiniteNeverReachTheDrawing) {
  ReportInput input = DemoReport();
  input.samples.resize(5);
  input.samples[0].set_loss(std::nan(""));
  input.samples[1].set_tokens_per_second(std::numeric_limits<double>::infinity());
  input.samples[2].set_grad_norm(-std::numeric_limits<double>::infinity());
  input.samples[3].set_step_seconds(std::nan(""));
  EXPECT_FALSE(std::regex_search(Body(RenderHtmlReport(input)), std::regex("[\"LM: ]-?(nan|inf)")));
}

TEST(HtmlReportTest, SkippedStepsAreDrawnAsFarAsTheyAreFinite) {
  ReportInput input = DemoReport();
  input.samples.resize(4);
  for (auto& sample : input.samples) {
    sample.set_skipped(true);
    sample.set_loss(std::nan(""));
    sample.set_grad_norm(std::numeric_limits<double>::infinity());
    sample.clear_eval_loss();
  }
  input.job.mutable_progress()->clear_initial_eval_loss();
  const std::string page = RenderHtmlReport(input);
  EXPECT_THAT(page, Not(HasSubstr("No steps were reported.")));
  for (const char* finite : {"Throughput", "Learning rate", "Expert balance", "Router entropy"}) {
    EXPECT_THAT(CardOf(page, finite), HasSubstr("<svg")) << finite;
  }
  for (const char* not_finite : {"Loss", "Gradient norm"}) {
    EXPECT_THAT(CardOf(page, not_finite), HasSubstr("No finite values.")) << not_finite;
  }
}

TEST(LineChartTest, BreaksTheLineWhereAValueIsMissing) {
  LineChart chart;
  chart.series.push_back({"a", "s1", {{1, 1}, {2, 2}, {3, NAN}, {4, 1}, {5, 2}}});
  const std::string svg = RenderLineChart(chart);
  EXPECT_TRUE(std::regex_search(svg, std::regex("d=\"M[0-9. ]+L[0-9. ]+M[0-9. ]+L[0-9. ]+\"")))
      << svg;
}

TEST(LineChartTest, OnePointIsADot) {
  LineChart chart;
  chart.series.push_back({"a", "s1", {{7, 3}}});
  EXPECT_THAT(RenderLineChart(chart), HasSubstr("<circle"));
}

TEST(ChartScaleTest, TicksAreRoundAndCoverTheValues) {
  EXPECT_EQ(RoundScale(2.17, 9.07, 5).Ticks(), (std::vector<double>{2, 4, 6, 8, 10}));
  EXPECT_EQ(TightScale(1, 400, 6).Ticks(), (std::vector<double>{100, 200, 300, 400}));
  EXPECT_GE(RoundScale(5, 5, 5).Ticks().size(), 2u);
  EXPECT_EQ(RoundScale(NAN, INFINITY, 5).low, 0);
}

TEST(ChartScaleTest, TickTextsHaveTheDigitsThatTheStepNeeds) {
  EXPECT_EQ(TickText(0.05, 0.05), "0.05");
  EXPECT_EQ(TickText(1200, 200), "1,200");
  EXPECT_EQ(TickText(0, 0.1), "0");
  EXPECT_EQ(TickText(0.0004, 0.0002), "0.0004");
}

TEST(SmoothTest, AConstantStaysConstantAndGapsAreSkipped) {
  const auto smooth = Smooth({{1, 2}, {2, NAN}, {3, 2}}, 10);
  ASSERT_EQ(smooth.size(), 2u);
  EXPECT_DOUBLE_EQ(smooth[1].second, 2);
}

TEST(EscapeHtmlTest, KeepsUtf8AndReplacesWhatIsNot) {
  EXPECT_EQ(EscapeHtml("grün \xF0\x9F\x98\x80"), "grün \xF0\x9F\x98\x80");
  EXPECT_EQ(EscapeHtml("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(EscapeHtml("\xED\xA0\x80").find('\xED'), std::string::npos);
  EXPECT_EQ(EscapeHtml(std::string("a\0b", 3)),
            "a\xEF\xBF\xBD"
            "b");
}

}  // namespace
}  // namespace switchyard::coordinator
