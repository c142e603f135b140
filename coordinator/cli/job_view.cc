#include "coordinator/cli/job_view.h"

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/units.h"
#include "coordinator/cli/cli_context.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/text_table.h"
#include "coordinator/plan/plan_text.h"
#include "coordinator/report/job_text.h"

namespace switchyard::coordinator {
namespace {

std::string ProjectOf(const std::string& name) {
  const size_t begin = name.find('/') + 1;
  return name.substr(begin, name.find('/', begin) - begin);
}

std::string StepText(const v1::Progress& progress) {
  if (progress.step() == 0 && progress.total_steps() == 0) return "-";
  if (progress.total_steps() == 0) return absl::StrCat(progress.step());
  return absl::StrCat(progress.step(), "/", progress.total_steps());
}

std::string Why(const v1::Job& job) {
  if (job.queue_position() > 0) {
    return absl::StrCat("place ", job.queue_position(), ": ", Printable(job.reason().message()));
  }
  if (job.state() == v1::JOB_STATE_RUNNING) return PhaseWord(job.phase());
  return Printable(job.reason().message());
}

// "node-a: 0, 1; node-b: 2, 3".
std::string Placement(const v1::Attempt& attempt) {
  std::map<std::string, std::vector<int>> by_node;
  for (const auto& placement : attempt.placements()) {
    by_node[placement.node()].push_back(placement.rank());
  }
  std::vector<std::string> parts;
  for (const auto& [node, ranks] : by_node) {
    parts.push_back(absl::StrCat(node, " ", absl::StrJoin(ranks, ",")));
  }
  return absl::StrJoin(parts, "; ");
}

std::string AttemptTable(const v1::Job& job, absl::Time now) {
  TextTable table({"ATTEMPT", "STARTED", "RAN", "FROM STEP", "TO STEP", "RANKS", "ENDED"});
  for (const auto& attempt : job.attempts()) {
    const absl::Time end = attempt.end_time().seconds() > 0 ? ToTime(attempt.end_time()) : now;
    std::string outcome = attempt.outcome().code();
    if (!attempt.outcome().message().empty()) {
      absl::StrAppend(&outcome, ": ", Printable(attempt.outcome().message()));
    }
    if (outcome.empty()) outcome = attempt.end_time().seconds() > 0 ? "-" : "runs";
    table.AddRow({absl::StrCat(attempt.epoch()), TimeText(attempt.start_time()),
                  FormatDuration(absl::ToDoubleSeconds(end - ToTime(attempt.start_time()))),
                  absl::StrCat(attempt.resumed_from_step()), absl::StrCat(attempt.last_step()),
                  Placement(attempt), outcome});
  }
  return table.Render("  ");
}

void AddProgress(const v1::Job& job, TextTable& table) {
  const auto& progress = job.progress();
  table.AddRow({"step", StepText(progress)});
  if (progress.step() == 0) return;
  table.AddRow({"tokens", FormatCount(progress.tokens())});
  table.AddRow({"loss", absl::StrFormat("%.4f", progress.loss())});
  if (progress.has_eval_loss()) {
    std::string text = absl::StrFormat("%.4f", progress.eval_loss());
    if (progress.has_initial_eval_loss()) {
      absl::StrAppend(&text, absl::StrFormat(" (from %.4f)", progress.initial_eval_loss()));
    }
    table.AddRow({"held-out loss", text});
  }
  table.AddRow({"speed", absl::StrCat(TokenRate(progress.tokens_per_second()), ", predicted ",
                                      TokenRate(job.plan().tokens_per_second()))});
  table.AddRow(
      {"peak memory", absl::StrCat(FormatBytes(progress.peak_memory_bytes()), " a rank, planned ",
                                   FormatBytes(job.plan().memory_bytes_per_rank()))});
  if (progress.has_eta()) {
    table.AddRow({"time left", FormatDuration(absl::ToDoubleSeconds(ToDuration(progress.eta())))});
  }
  if (progress.skipped_steps() > 0)
    table.AddRow({"skipped steps", absl::StrCat(progress.skipped_steps())});
  if (progress.checkpoint_step() > 0) {
    table.AddRow({"newest checkpoint", absl::StrCat("step ", progress.checkpoint_step())});
  }
}

}  // namespace

std::string JobTable(const v1::ListJobsResponse& jobs, absl::Time now, bool with_project,
                     bool color) {
  std::vector<std::string> header = {"JOB", "STATE", "STEP", "LOSS", "TOKENS/S", "AGE", "WHY"};
  if (with_project) header.insert(header.begin(), "PROJECT");
  TextTable table(header);
  const int first = with_project ? 1 : 0;
  for (int column : {2, 3, 4}) table.AlignRight(first + column);
  for (const auto& job : jobs.jobs()) {
    const auto& progress = job.progress();
    std::vector<std::string> row = {
        Printable(ShortName(job.name())),
        Colored(StateWord(job.state()), StateColor(job.state()), color),
        StepText(progress),
        progress.step() > 0 ? absl::StrFormat("%.4f", progress.loss()) : "-",
        progress.step() > 0 ? FormatGrouped(static_cast<int64_t>(progress.tokens_per_second()))
                            : "-",
        AgeText(job.create_time(), now),
        Truncate(Why(job), 70)};
    if (with_project) row.insert(row.begin(), ProjectOf(job.name()));
    table.AddRow(std::move(row));
  }
  return table.Render();
}

std::string JobDescription(const v1::Job& job, absl::Time now, bool color) {
  TextTable table;
  table.AddRow({"name", Printable(job.name())});
  std::string state = Colored(StateWord(job.state()), StateColor(job.state()), color);
  const std::string phase = PhaseWord(job.phase());
  if (!phase.empty()) absl::StrAppend(&state, " (", phase, ")");
  table.AddRow({"state", state});
  if (!job.reason().message().empty()) {
    table.AddRow(
        {"why", absl::StrCat(job.reason().code(), ": ", Printable(job.reason().message()))});
  }
  if (job.queue_position() > 0)
    table.AddRow({"place in queue", absl::StrCat(job.queue_position())});
  AddProgress(job, table);
  table.AddRow({"model", Printable(job.spec().model())});
  table.AddRow({"output", Printable(job.spec().checkpoint().output())});
  if (!job.output_model().empty()) table.AddRow({"finished model", Printable(job.output_model())});
  table.AddRow({"priority", absl::StrCat(job.spec().priority())});
  std::map<std::string, std::string> labels(job.spec().labels().begin(), job.spec().labels().end());
  if (!labels.empty()) {
    table.AddRow({"labels", Printable(absl::StrJoin(labels, ", ", absl::PairFormatter("=")))});
  }
  table.AddRow({"created", TimeText(job.create_time())});
  if (!job.trace_id().empty()) table.AddRow({"trace", job.trace_id()});
  if (job.end_time().seconds() > 0) table.AddRow({"ended", TimeText(job.end_time())});
  if (job.has_plan()) table.AddRow({"plan", SummarizePlan(job.plan())});
  std::string text = table.Render();
  for (const std::string& line : job.reason().evidence()) {
    absl::StrAppend(&text, "  ", Printable(line), "\n");
  }
  if (job.attempts_size() > 0) absl::StrAppend(&text, "\nattempts\n", AttemptTable(job, now));
  return text;
}

}  // namespace switchyard::coordinator
