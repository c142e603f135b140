#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "common/units.h"
#include "coordinator/plan/plan_text.h"
#include "coordinator/report/html_text.h"
#include "coordinator/report/job_text.h"
#include "coordinator/report/report_sections.h"

namespace switchyard::coordinator {
namespace {

// The newest stand open; what came before is folded.
constexpr int kOpenEvents = 30;

absl::Time TimeOf(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

// UTC, so that the page says the same wherever it is made.
std::string TimeUtc(const google::protobuf::Timestamp& timestamp) {
  if (timestamp.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", TimeOf(timestamp), absl::UTCTimeZone());
}

// Of what has begun; without an end it runs up to `now`.
std::string Ran(const google::protobuf::Timestamp& from, const google::protobuf::Timestamp& end,
                absl::Time now) {
  if (from.seconds() == 0) return "-";
  const absl::Time to = end.seconds() == 0 ? now : TimeOf(end);
  return FormatDuration(std::max(0.0, absl::ToDoubleSeconds(to - TimeOf(from))));
}

std::string Tiles(const ReportInput& input) {
  const v1::Job& job = input.job;
  const auto& progress = job.progress();
  std::string html = "<div class=\"tiles\">";
  if (progress.has_eval_loss()) {
    html += HtmlTile("Held-out loss", absl::StrFormat("%.4f", progress.eval_loss()),
                     progress.has_initial_eval_loss()
                         ? absl::StrFormat("%.4f before training", progress.initial_eval_loss())
                         : "nats per target");
  }
  if (progress.step() > 0)
    html += HtmlTile("Training loss", absl::StrFormat("%.4f", progress.loss()), "newest step");
  if (!input.samples.empty() && std::isfinite(input.samples.back().aux_loss())) {
    html +=
        HtmlTile("Load-balancing loss", absl::StrFormat("%.4f", input.samples.back().aux_loss()),
                 "newest step, before its coefficient");
  }
  html += HtmlTile("Steps", FormatGrouped(progress.step()),
                   progress.total_steps() > 0
                       ? absl::StrCat("of ", FormatGrouped(progress.total_steps()))
                       : "&nbsp;");
  if (progress.tokens_per_second() > 0) {
    const double predicted = job.plan().tokens_per_second();
    html += HtmlTile("Tokens/s", FormatGrouped(std::llround(progress.tokens_per_second())),
                     predicted > 0 ? absl::StrFormat("%.0f %% of predicted",
                                                     100 * progress.tokens_per_second() / predicted)
                                   : "measured");
  }
  if (progress.peak_memory_bytes() > 0) {
    html += HtmlTile("Peak memory", FormatBytes(progress.peak_memory_bytes()),
                     job.plan().memory_bytes_per_rank() > 0
                         ? absl::StrCat(FormatBytes(job.plan().memory_bytes_per_rank()), " planned")
                         : "of a rank");
  }
  std::string detail =
      job.attempts_size() == 1 ? "1 attempt" : absl::StrCat(job.attempts_size(), " attempts");
  if (job.state() == v1::JOB_STATE_RUNNING && progress.eta().seconds() > 0) {
    detail = absl::StrCat("ends in ", FormatDuration(static_cast<double>(progress.eta().seconds())),
                          job.attempts_size() > 1 ? absl::StrCat(", ", detail) : "");
  }
  html += HtmlTile("Time", Ran(job.start_time(), job.end_time(), input.now), detail);
  if (progress.skipped_steps() > 0) {
    html += HtmlTile("Skipped steps", FormatGrouped(progress.skipped_steps()),
                     "loss or gradient not finite");
  }
  return html + "</div>";
}

std::string List(const google::protobuf::RepeatedPtrField<std::string>& lines) {
  std::string html = "<ul>";
  for (const std::string& line : lines) absl::StrAppend(&html, "<li>", EscapeHtml(line), "</li>");
  return html + "</ul>";
}

}  // namespace

std::string HeaderSection(const ReportInput& input) {
  const v1::Job& job = input.job;
  std::string html =
      absl::StrCat("<header><h1>", EscapeHtml(JobId(job)), StateBadge(job.state()), "</h1>");
  if (!job.spec().model().empty()) {
    absl::StrAppend(&html, "<p>", EscapeHtml(job.spec().model()), " fine-tuned on ",
                    EscapeHtml(job.spec().data().train()), "</p>");
  }
  absl::StrAppend(&html, "<p>", EscapeHtml(job.name()));
  if (job.create_time().seconds() > 0)
    absl::StrAppend(&html, ", created ", TimeUtc(job.create_time()), " UTC");
  html += "</p>";
  if (!job.output_model().empty())
    absl::StrAppend(&html, "<p>Model: ", EscapeHtml(job.output_model()), "</p>");
  if (!job.reason().message().empty() && job.state() != v1::JOB_STATE_SUCCEEDED &&
      job.state() != v1::JOB_STATE_RUNNING) {
    const char* kind = job.state() == v1::JOB_STATE_FAILED       ? "bad"
                       : job.state() == v1::JOB_STATE_RECOVERING ? "warn"
                                                                 : "";
    absl::StrAppend(&html, "<div class=\"reason ", kind, "\"><b>", EscapeHtml(job.reason().code()),
                    "</b> ", EscapeHtml(job.reason().message()));
    if (!job.reason().evidence().empty()) {
      absl::StrAppend(&html, "<pre>", EscapeHtml(absl::StrJoin(job.reason().evidence(), "\n")),
                      "</pre>");
    }
    html += "</div>";
  }
  return html + "</header>" + Tiles(input);
}

std::string PlanSection(const ReportInput& input) {
  const v1::Plan& plan = input.job.plan();
  if (plan.ranks() == 0) return HtmlCard("Plan", "", "<p class=\"empty\">The job has no plan.</p>");
  const std::vector<std::pair<std::string, std::string>> facts = {
      {"mesh",
       absl::StrCat(plan.ranks(), " ranks: ", plan.expert_parallel(), " expert-parallel &times; ",
                    plan.expert_data_parallel(), " replicas, ", EscapeHtml(plan.device()))},
      {"numbers",
       absl::StrCat(EscapeHtml(plan.precision()), ", optimizer ", EscapeHtml(plan.optimizer()))},
      {"batch", absl::StrCat(plan.global_batch_sequences(), " sequences of ",
                             FormatGrouped(plan.sequence_length()),
                             " tokens: ", plan.micro_batch_sequences(), " at once &times; ",
                             plan.gradient_accumulation(), " accumulated on each rank")},
      {"length", absl::StrCat(FormatGrouped(plan.total_steps()), " steps, ",
                              FormatCount(plan.total_tokens()), " tokens")},
      {"predicted",
       absl::StrCat(FormatGrouped(std::llround(plan.tokens_per_second())), " tokens/s, ",
                    FormatDuration(static_cast<double>(plan.duration().seconds())),
                    " of training")},
      {"model", absl::StrCat(FormatCount(plan.model_parameters()), " parameters, ",
                             FormatCount(plan.active_parameters()), " for one token")},
      {"checkpoint", absl::StrCat(FormatBytes(plan.checkpoint_bytes()), " each, ",
                                  FormatBytes(plan.disk_needed_bytes()), " in all",
                                  plan.disk_free_bytes() >= 0
                                      ? absl::StrCat(", ", FormatBytes(plan.disk_free_bytes()),
                                                     " free when planned")
                                      : "")}};
  std::string body = "<dl>";
  for (const auto& [name, value] : facts)
    absl::StrAppend(&body, "<dt>", name, "</dt><dd>", value, "</dd>");
  body += "</dl>";
  if (!plan.warnings().empty())
    absl::StrAppend(&body, "<p class=\"note\">Warnings</p>", List(plan.warnings()));
  if (!plan.rejected().empty()) {
    std::vector<std::vector<std::string>> rows;
    for (const auto& other : plan.rejected()) {
      rows.push_back(
          {absl::StrCat(other.ranks()), absl::StrCat(other.expert_parallel()),
           absl::StrCat(other.micro_batch_sequences()), FormatBytes(other.memory_bytes_per_rank()),
           other.tokens_per_second() > 0 ? FormatGrouped(std::llround(other.tokens_per_second()))
                                         : "-",
           EscapeHtml(other.reason())});
    }
    absl::StrAppend(
        &body, "<p class=\"note\">Not taken</p>",
        HtmlTable({"Ranks", "Expert-parallel", "At once", "Memory", "Tokens/s", "Why not"}, rows,
                  {0, 1, 2, 3, 4}));
  }
  if (!plan.defaults().empty()) {
    const std::map<std::string, std::string> sorted(plan.defaults().begin(), plan.defaults().end());
    body += "<details><summary>Defaults taken</summary><dl>";
    for (const auto& [field, value] : sorted) {
      absl::StrAppend(&body, "<dt>", EscapeHtml(field), "</dt><dd>", EscapeHtml(value), "</dd>");
    }
    body += "</dl></details>";
  }
  return HtmlCard("Plan", "", body);
}

std::string AttemptSection(const ReportInput& input) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& attempt : input.job.attempts()) {
    std::map<std::string, std::vector<int>> nodes;
    for (const auto& placement : attempt.placements())
      nodes[placement.node()].push_back(placement.rank());
    std::vector<std::string> places;
    for (const auto& [node, ranks] : nodes)
      places.push_back(absl::StrCat(node, ": ", absl::StrJoin(ranks, ", ")));
    std::string outcome = EscapeHtml(attempt.outcome().code());
    if (!attempt.outcome().message().empty())
      absl::StrAppend(&outcome, ": ", EscapeHtml(attempt.outcome().message()));
    rows.push_back({absl::StrCat(attempt.epoch()), TimeUtc(attempt.start_time()),
                    Ran(attempt.start_time(), attempt.end_time(), input.now),
                    absl::StrCat(attempt.resumed_from_step()), absl::StrCat(attempt.last_step()),
                    EscapeHtml(absl::StrJoin(places, "; ")), outcome});
  }
  if (rows.empty())
    return HtmlCard("Attempts", "", "<p class=\"empty\">The job was never launched.</p>");
  return HtmlCard("Attempts", "",
                  HtmlTable({"", "Started (UTC)", "Ran", "From step", "To step", "Ranks", "Ended"},
                            rows, {0, 3, 4}));
}

std::string EventSection(const ReportInput& input) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& event : input.events) {
    const char* css_class = event.severity() == v1::EVENT_SEVERITY_ERROR     ? "sev-error"
                            : event.severity() == v1::EVENT_SEVERITY_WARNING ? "sev-warning"
                                                                             : "";
    rows.push_back(
        {TimeUtc(event.time()), event.epoch() > 0 ? absl::StrCat(event.epoch()) : "-",
         absl::StrCat("<span class=\"type ", css_class, "\">", EscapeHtml(event.type()), "</span>"),
         EscapeHtml(event.message())});
  }
  if (rows.empty()) return HtmlCard("Events", "", "<p class=\"empty\">No events.</p>");
  const std::vector<std::string> header = {"Time (UTC)", "Attempt", "Event", ""};
  std::string body;
  if (input.events_left_out > 0) {
    absl::StrAppend(&body, "<p class=\"note\">", FormatGrouped(input.events_left_out),
                    " older ones: switchyard events ", EscapeHtml(JobId(input.job)), "</p>");
  }
  if (rows.size() > kOpenEvents + 10) {
    const auto split = rows.end() - kOpenEvents;
    absl::StrAppend(&body, "<details><summary>", split - rows.begin(), " earlier events</summary>",
                    HtmlTable(header, {rows.begin(), split}, {1}), "</details>");
    rows.erase(rows.begin(), split);
  }
  return HtmlCard("Events", "", body + HtmlTable(header, rows, {1}), "events");
}

std::string SpecSection(const ReportInput& input) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.add_whitespace = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(input.job.spec(), &json, options).ok()) {
    json = input.job.spec().DebugString();
  }
  return HtmlCard("Spec", "As it was submitted", absl::StrCat("<pre>", EscapeHtml(json), "</pre>"));
}

}  // namespace switchyard::coordinator
