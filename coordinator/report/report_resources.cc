#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/units.h"
#include "coordinator/report/html_text.h"
#include "coordinator/report/report_sections.h"

namespace switchyard::coordinator {
namespace {

std::string Words(const std::string& name) {
  return EscapeHtml(absl::StrReplaceAll(name, {{"_", " "}}));
}

// Steps are compared in milliseconds.
std::string StepTime(double seconds) {
  return seconds < 9.9995 ? absl::StrFormat("%.0f ms", seconds * 1000) : FormatDuration(seconds);
}

std::string BarRow(const std::string& name, const std::string& value, const std::string& segments) {
  return absl::StrCat("<div class=\"barrow\"><p><span>", name, "</span><span>", value,
                      "</span></p>", HtmlBar(segments), "</div>");
}

}  // namespace

std::string MemorySection(const ReportInput& input) {
  const auto& plan = input.job.plan();
  if (plan.memory().empty())
    return HtmlCard("Memory", "", "<p class=\"empty\">The job has no plan.</p>");
  const auto planned = static_cast<double>(plan.memory_bytes_per_rank());
  const auto measured = static_cast<double>(input.job.progress().peak_memory_bytes());
  const auto capacity = static_cast<double>(plan.memory_capacity_bytes_per_rank());
  // All bars share one scale. A capacity far above both would leave nothing to see.
  const double largest = std::max({planned, measured, 1.0});
  const double full =
      capacity > 0 && capacity < 4 * largest ? std::max(largest, capacity) : largest;
  std::string segments;
  double begin = 0;
  std::vector<std::vector<std::string>> rows;
  for (int i = 0; i < plan.memory_size(); ++i) {
    const auto& category = plan.memory(i);
    const std::string colour = absl::StrCat("m", i % 8);
    const std::string text =
        absl::StrCat(Words(category.name()), ": ", FormatBytes(category.bytes()));
    const double share = static_cast<double>(category.bytes()) / full;
    segments += HtmlBarSegment(colour, begin, share, text);
    begin += share;
    rows.push_back(
        {absl::StrCat("<span class=\"swatch ", colour, "\"></span>", Words(category.name())),
         FormatBytes(category.bytes()),
         planned > 0 ? absl::StrFormat("%.1f %%", 100 * category.bytes() / planned) : ""});
  }
  std::string body = BarRow("planned", FormatBytes(planned), segments);
  if (measured > 0) {
    std::string value = FormatBytes(measured);
    if (planned > 0)
      absl::StrAppend(&value,
                      absl::StrFormat(" (%+.1f %% of plan)", 100 * (measured / planned - 1)));
    body += BarRow("measured peak", value,
                   HtmlBarSegment("measured", 0, measured / full, "measured peak"));
  } else {
    body += "<p class=\"empty\">No peak was measured.</p>";
  }
  std::string note = "Bytes of the rank that needs most";
  if (capacity > 0) absl::StrAppend(&note, "; a rank may use ", FormatBytes(capacity));
  if (full == capacity) absl::StrAppend(&note, ", the bars' full width");
  return HtmlCard("Memory", note, body + HtmlTable({}, rows, {1, 2}));
}

std::string PhaseSection(const ReportInput& input) {
  std::map<std::string, double> sums;
  double total = 0;
  int steps = 0;
  for (const auto& sample : input.samples) {
    if (sample.phase_seconds().empty()) continue;
    ++steps;
    total += sample.step_seconds();
    for (const auto& [phase, seconds] : sample.phase_seconds()) sums[phase] += seconds;
  }
  if (steps == 0)
    return HtmlCard("Time of a step", "", "<p class=\"empty\">No phase times were reported.</p>");
  std::vector<std::pair<double, std::string>> phases;
  double named = 0;
  for (const auto& [phase, seconds] : sums) {
    phases.emplace_back(seconds / steps, phase);
    named += seconds;
  }
  std::sort(phases.rbegin(), phases.rend());
  const double step_seconds = total / steps;
  // Rank 0's phases against the slowest rank's step: what is left is waiting and what no phase
  // counts.
  if (total > named) phases.emplace_back((total - named) / steps, "other");
  const double longest = std::max(1e-12, std::max_element(phases.begin(), phases.end())->first);
  std::string body = "<div class=\"thin\">";
  for (const auto& [seconds, phase] : phases) {
    const std::string value = absl::StrCat(
        StepTime(seconds),
        step_seconds > 0 ? absl::StrFormat(" (%.0f %%)", 100 * seconds / step_seconds) : "");
    body +=
        BarRow(Words(phase), value,
               HtmlBarSegment(phase == "other" ? "m7" : "m0", 0, seconds / longest, Words(phase)));
  }
  body += "</div>";
  return HtmlCard("Time of a step",
                  absl::StrCat("Mean over ", FormatGrouped(steps), " steps, rank 0; a step takes ",
                               StepTime(step_seconds)),
                  body);
}

}  // namespace switchyard::coordinator
