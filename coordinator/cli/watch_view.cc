#include "coordinator/cli/watch_view.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/units.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/sparkline.h"
#include "coordinator/cli/text_table.h"
#include "coordinator/report/job_text.h"

namespace switchyard::coordinator {
namespace {

constexpr size_t kMaxSteps = 4096;
constexpr size_t kPhaseSteps = 10;  // that the phases' shares are taken over
constexpr size_t kShownPhases = 5;
constexpr char kBold[] = "\033[1m";
constexpr char kDim[] = "\033[2m";

std::string Loss(double value) { return absl::StrFormat("%.4f", value); }

std::string Label(const std::string& name, bool color) {
  return Colored(absl::StrFormat("  %-11s", name), kDim, color);
}

std::string Headline(const v1::Job& job, const WatchStyle& style) {
  const char* separator = style.unicode ? " · " : " | ";
  std::string line =
      absl::StrCat(Colored(Printable(ShortName(job.name())), kBold, style.color), "  ",
                   Colored(StateWord(job.state()), StateColor(job.state()), style.color));
  const std::string phase = PhaseWord(job.phase());
  if (!phase.empty()) absl::StrAppend(&line, separator, phase);
  if (job.queue_position() > 0) absl::StrAppend(&line, separator, "place ", job.queue_position());
  if (job.epoch() > 0) absl::StrAppend(&line, separator, "attempt ", job.epoch());
  if (job.plan().ranks() > 0) {
    absl::StrAppend(&line, separator, job.plan().ranks(), " ranks, expert-parallel ",
                    job.plan().expert_parallel());
  }
  return line;
}

std::string ProgressLine(const v1::Job& job, const WatchStyle& style) {
  const auto& progress = job.progress();
  const int64_t total =
      progress.total_steps() > 0 ? progress.total_steps() : job.plan().total_steps();
  const double done =
      total > 0 ? static_cast<double>(progress.step()) / static_cast<double>(total) : 0;
  const int width = std::clamp(style.width - 48, 10, 60);
  std::string line =
      absl::StrCat("  ", Colored(ProgressBar(done, width, style.unicode), "\033[36m", style.color),
                   absl::StrFormat(" %3.0f%%  step %d", std::floor(done * 100), progress.step()));
  if (total > 0) absl::StrAppend(&line, "/", total);
  if (progress.has_eta()) {
    absl::StrAppend(&line, "  ", FormatDuration(absl::ToDoubleSeconds(ToDuration(progress.eta()))),
                    " left");
  }
  return line;
}

std::string LossLine(const WatchModel& model, const WatchStyle& style) {
  const auto& progress = model.job().progress();
  const int spark_width = std::clamp(style.width - 62, 0, 40);
  std::string line = absl::StrCat(Label("loss", style.color), Loss(progress.loss()));
  const std::string spark = Sparkline(model.Losses(), spark_width, style.unicode);
  if (!spark.empty()) absl::StrAppend(&line, "  ", Colored(spark, "\033[36m", style.color));
  if (progress.has_eval_loss()) {
    absl::StrAppend(&line, "  held-out ", Loss(progress.eval_loss()));
    if (progress.has_initial_eval_loss()) {
      absl::StrAppend(&line, " (from ", Loss(progress.initial_eval_loss()), ")");
    }
  }
  return line;
}

std::string SpeedLine(const v1::Job& job, const WatchStyle& style) {
  const double measured = job.progress().tokens_per_second();
  const double predicted = job.plan().tokens_per_second();
  std::string line = absl::StrCat(Label("speed", style.color), TokenRate(measured));
  if (predicted > 0) {
    absl::StrAppend(&line, "  predicted ", TokenRate(predicted),
                    absl::StrFormat(" (%.0f %%)", 100 * measured / predicted));
  }
  return line;
}

std::string MemoryLine(const v1::Job& job, const WatchStyle& style) {
  std::string line = absl::StrCat(Label("memory", style.color),
                                  FormatBytes(job.progress().peak_memory_bytes()), " peak a rank");
  if (job.plan().memory_bytes_per_rank() > 0) {
    absl::StrAppend(&line, ", planned ", FormatBytes(job.plan().memory_bytes_per_rank()));
  }
  if (job.plan().memory_capacity_bytes_per_rank() > 0) {
    absl::StrAppend(&line, " of ", FormatBytes(job.plan().memory_capacity_bytes_per_rank()));
  }
  return line;
}

// Empty when no phases are known.
std::string PhaseLine(const WatchModel& model, const WatchStyle& style) {
  std::string text;
  size_t shown = 0;
  for (const auto& [share, phase] : model.PhaseShares()) {
    if (share < 0.01 || shown++ == kShownPhases) break;
    absl::StrAppend(&text, text.empty() ? "" : ", ", absl::StrReplaceAll(phase, {{"_", " "}}),
                    absl::StrFormat(" %.0f %%", 100 * share));
  }
  return text.empty() ? "" : absl::StrCat(Label("time", style.color), text);
}

std::string ExpertLine(const v1::StepSample& step, const WatchStyle& style) {
  std::string line =
      absl::StrCat(Label("experts", style.color),
                   absl::StrFormat("busiest %.2f x mean", step.expert_load_max_over_mean()));
  const std::string dead = absl::StrCat(step.dead_experts(), " without tokens");
  absl::StrAppend(&line, ", ", Colored(dead, "\033[33m", style.color && step.dead_experts() > 0));
  absl::StrAppend(&line, absl::StrFormat(", router entropy %.2f", step.router_entropy_ratio()));
  return line;
}

}  // namespace

void WatchModel::Seed(const std::vector<v1::StepSample>& samples) {
  for (const auto& sample : samples) AddStep(sample);
}

void WatchModel::AddStep(const v1::StepSample& sample) {
  while (!steps_.empty() && steps_.back().step() >= sample.step()) steps_.pop_back();
  steps_.push_back(sample);
  if (steps_.size() > kMaxSteps) steps_.erase(steps_.begin(), steps_.begin() + kMaxSteps / 4);
  // The job itself is told at most once a second; its steps are newer.
  auto& progress = *job_.mutable_progress();
  progress.set_step(sample.step());
  if (!sample.skipped()) progress.set_loss(sample.loss());
  if (sample.has_eval_loss()) progress.set_eval_loss(sample.eval_loss());
  if (sample.peak_memory_bytes() > 0) progress.set_peak_memory_bytes(sample.peak_memory_bytes());
}

std::vector<double> WatchModel::Losses() const {
  std::vector<double> losses;
  for (const auto& step : steps_) losses.push_back(step.skipped() ? std::nan("") : step.loss());
  return losses;
}

std::vector<std::pair<double, std::string>> WatchModel::PhaseShares() const {
  std::map<std::string, double> seconds;
  double total = 0;
  for (size_t i = steps_.size() - std::min(steps_.size(), kPhaseSteps); i < steps_.size(); ++i) {
    if (steps_[i].phase_seconds().empty()) continue;
    total += steps_[i].step_seconds();
    for (const auto& [phase, spent] : steps_[i].phase_seconds()) seconds[phase] += spent;
  }
  std::vector<std::pair<double, std::string>> shares;
  if (total <= 0) return shares;
  for (const auto& [phase, spent] : seconds) shares.emplace_back(spent / total, phase);
  std::sort(shares.rbegin(), shares.rend());
  return shares;
}

std::vector<std::string> WatchBlock(const WatchModel& model, const WatchStyle& style,
                                    absl::Time now, const std::string& note) {
  const v1::Job& job = model.job();
  std::vector<std::string> lines = {Headline(job, style)};
  if (job.progress().step() > 0 || job.state() == v1::JOB_STATE_RUNNING) {
    lines.push_back(ProgressLine(job, style));
  }
  if (job.progress().step() > 0) {
    lines.push_back(LossLine(model, style));
    lines.push_back(SpeedLine(job, style));
    lines.push_back(MemoryLine(job, style));
    const std::string phases = PhaseLine(model, style);
    if (!phases.empty()) lines.push_back(phases);
    if (model.newest() != nullptr) lines.push_back(ExpertLine(*model.newest(), style));
  }
  if (job.progress().checkpoint_step() > 0) {
    lines.push_back(
        absl::StrCat(Label("checkpoint", style.color), "step ", job.progress().checkpoint_step()));
  }
  if (job.progress().skipped_steps() > 0) {
    lines.push_back(
        absl::StrCat(Label("skipped", style.color),
                     Colored(absl::StrCat(job.progress().skipped_steps()), "\033[33m", style.color),
                     " steps whose loss or gradient was not finite"));
  }
  if (job.start_time().seconds() > 0 && !job.terminal()) {
    lines.push_back(
        absl::StrCat(Label("running", style.color), "for ", AgeText(job.start_time(), now)));
  }
  if (!job.reason().message().empty() && job.state() != v1::JOB_STATE_RUNNING) {
    lines.push_back(absl::StrCat("  ", Printable(job.reason().message())));
  }
  if (!note.empty()) lines.push_back(absl::StrCat("  ", Colored(note, "\033[33m", style.color)));
  for (std::string& line : lines) line = Truncate(line, style.width);
  return lines;
}

std::string JobLine(const v1::Job& job) {
  std::string line = StateWord(job.state());
  const std::string phase = PhaseWord(job.phase());
  if (!phase.empty()) absl::StrAppend(&line, " (", phase, ")");
  if (job.queue_position() > 0)
    absl::StrAppend(&line, ", place ", job.queue_position(), " in the queue");
  if (job.epoch() > 0) absl::StrAppend(&line, ", attempt ", job.epoch());
  if (!job.reason().message().empty())
    absl::StrAppend(&line, ": ", Printable(job.reason().message()));
  return line;
}

std::string StepLine(const v1::Job& job, const v1::StepSample& sample) {
  std::string line = absl::StrCat("step ", sample.step());
  const int64_t total =
      job.progress().total_steps() > 0 ? job.progress().total_steps() : job.plan().total_steps();
  if (total > 0) absl::StrAppend(&line, "/", total);
  if (sample.skipped()) return absl::StrCat(line, "  skipped: loss or gradient was not finite");
  absl::StrAppend(&line, "  loss ", Loss(sample.loss()));
  if (sample.has_eval_loss()) absl::StrAppend(&line, "  held-out ", Loss(sample.eval_loss()));
  absl::StrAppend(&line, "  ", TokenRate(sample.tokens_per_second()), "  lr ",
                  absl::StrFormat("%.2e", sample.learning_rate()));
  // After a resume nothing is known until the next step that samples the load.
  if (sample.expert_load_max_over_mean() > 0) {
    absl::StrAppendFormat(&line, "  experts %.2f x mean", sample.expert_load_max_over_mean());
  }
  absl::StrAppend(&line, "  ", FormatBytes(sample.peak_memory_bytes()));
  return line;
}

std::string EventLine(const v1::Event& event, bool color) {
  const bool error = event.severity() == v1::EVENT_SEVERITY_ERROR;
  const bool warning = event.severity() == v1::EVENT_SEVERITY_WARNING;
  const std::string time =
      absl::FormatTime("%H:%M:%S", ToTime(event.time()), absl::LocalTimeZone());
  return absl::StrCat(
      Colored(time, kDim, color), "  ",
      Colored(event.type(), error ? "\033[31m" : "\033[33m", color && (error || warning)), "  ",
      Printable(event.message()));
}

std::string FinalSummary(const v1::Job& job, bool color) {
  std::string text = absl::StrCat(Printable(ShortName(job.name())), " ",
                                  Colored(StateWord(job.state()), StateColor(job.state()), color));
  if (job.start_time().seconds() > 0 && job.end_time().seconds() > 0) {
    absl::StrAppend(
        &text, " after ",
        FormatDuration(absl::ToDoubleSeconds(ToTime(job.end_time()) - ToTime(job.start_time()))));
  }
  if (job.progress().step() > 0) absl::StrAppend(&text, ", ", job.progress().step(), " steps");
  absl::StrAppend(&text, "\n");
  TextTable table;
  const auto& progress = job.progress();
  if (progress.has_initial_eval_loss() && progress.has_eval_loss()) {
    table.AddRow(
        {"held-out loss",
         absl::StrCat(Loss(progress.initial_eval_loss()), " before, ", Loss(progress.eval_loss()),
                      " after (",
                      absl::StrFormat("%+.4f", progress.eval_loss() - progress.initial_eval_loss()),
                      " nats per target)")});
  } else if (progress.has_eval_loss()) {
    table.AddRow({"held-out loss", Loss(progress.eval_loss())});
  }
  if (progress.step() > 0) table.AddRow({"training loss", Loss(progress.loss())});
  if (!job.output_model().empty()) table.AddRow({"model", job.output_model()});
  if (job.output_model().empty() && progress.checkpoint_step() > 0) {
    table.AddRow({"checkpoint", absl::StrCat("step ", progress.checkpoint_step(), " under ",
                                             job.spec().checkpoint().output())});
  }
  if (job.state() != v1::JOB_STATE_SUCCEEDED && !job.reason().message().empty()) {
    table.AddRow(
        {"reason", absl::StrCat(job.reason().code(), ": ", Printable(job.reason().message()))});
  }
  absl::StrAppend(&text, table.Render("  "));
  if (job.state() == v1::JOB_STATE_FAILED) {
    for (const std::string& line : job.reason().evidence()) {
      absl::StrAppend(&text, "    ", Printable(line), "\n");
    }
    absl::StrAppend(&text, "  More: switchyard logs ", ShortName(job.name()),
                    ", switchyard events ", ShortName(job.name()),
                    "; again from its newest checkpoint: switchyard retry ", ShortName(job.name()),
                    "\n");
  }
  return text;
}

}  // namespace switchyard::coordinator
