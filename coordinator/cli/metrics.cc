// experts, metrics and report.
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/experts_view.h"
#include "coordinator/cli/fetch.h"
#include "coordinator/cli/json_text.h"
#include "coordinator/cli/text_table.h"
#include "coordinator/report/html_report.h"

namespace switchyard::coordinator {
namespace {

absl::StatusOr<int> Experts(CliContext& context, const std::string& job) {
  const ApiClient client(context.options.coordinator);
  v1::GetExpertLoadRequest request;
  request.set_name(context.JobName(job));
  SWITCHYARD_ASSIGN_OR_RETURN(
      const v1::ExpertLoad load,
      client.Call(&v1::JobService::Stub::GetExpertLoad, client.jobs(), request));
  if (context.options.json) {
    context.io.out << JsonText(load);
  } else if (load.layers().empty()) {
    context.io.out << "No expert load was reported yet.\n";
  } else {
    context.io.out << (context.io.color ? ExpertHeatmap(load, context.io.width)
                                        : ExpertNumbers(load));
  }
  return kExitOk;
}

absl::StatusOr<v1::QueryMetricsResponse> Query(const ApiClient& client, const std::string& job,
                                               int64_t after_step, int max_samples) {
  v1::QueryMetricsRequest request;
  request.set_name(job);
  request.set_after_step(after_step);
  request.set_max_samples(max_samples);
  return client.Call(&v1::JobService::Stub::QueryMetrics, client.jobs(), request);
}

absl::StatusOr<int> Metrics(CliContext& context, const std::string& job, int64_t after_step,
                            int samples) {
  const ApiClient client(context.options.coordinator);
  SWITCHYARD_ASSIGN_OR_RETURN(const v1::QueryMetricsResponse metrics,
                              Query(client, context.JobName(job), after_step, samples));
  if (context.options.json) {
    context.io.out << JsonText(metrics);
    return kExitOk;
  }
  TextTable table({"STEP", "LOSS", "HELD-OUT", "LR", "GRAD NORM", "TOKENS/S", "SECONDS",
                   "PEAK MEMORY", "EXPERTS MAX/MEAN", "IDLE"});
  for (int column = 0; column < 10; ++column) table.AlignRight(column);
  for (const v1::StepSample& sample : metrics.samples()) {
    table.AddRow({absl::StrCat(sample.step(), sample.skipped() ? " skipped" : ""),
                  absl::StrFormat("%.4f", sample.loss()),
                  sample.has_eval_loss() ? absl::StrFormat("%.4f", sample.eval_loss()) : "-",
                  absl::StrFormat("%.2e", sample.learning_rate()),
                  absl::StrFormat("%.3f", sample.grad_norm()),
                  absl::StrFormat("%.0f", sample.tokens_per_second()),
                  absl::StrFormat("%.3f", sample.step_seconds()),
                  FormatBytes(sample.peak_memory_bytes()),
                  absl::StrFormat("%.2f", sample.expert_load_max_over_mean()),
                  absl::StrCat(sample.dead_experts())});
  }
  context.io.out << (table.empty() ? "No steps yet.\n" : table.Render());
  return kExitOk;
}

absl::StatusOr<ReportInput> GatherReport(const ApiClient& client, const std::string& name) {
  ReportInput input;
  input.now = absl::Now();
  v1::GetJobRequest get;
  get.set_name(name);
  SWITCHYARD_ASSIGN_OR_RETURN(input.job,
                              client.Call(&v1::JobService::Stub::GetJob, client.jobs(), get));
  SWITCHYARD_ASSIGN_OR_RETURN(const v1::QueryMetricsResponse metrics, Query(client, name, 0, 2000));
  input.samples.assign(metrics.samples().begin(), metrics.samples().end());
  SWITCHYARD_ASSIGN_OR_RETURN(const v1::ListEventsResponse events, FetchEvents(client, name));
  input.events.assign(events.events().begin(), events.events().end());
  v1::GetExpertLoadRequest load_request;
  load_request.set_name(name);
  const auto load = client.Call(&v1::JobService::Stub::GetExpertLoad, client.jobs(), load_request);
  // A job that has not trained yet has no load; its report says so.
  if (load.ok())
    input.expert_load = *load;
  else if (load.status().code() != absl::StatusCode::kNotFound &&
           load.status().code() != absl::StatusCode::kFailedPrecondition)
    return load.status();
  return input;
}

absl::StatusOr<int> Report(CliContext& context, const std::string& job, std::string file) {
  const ApiClient client(context.options.coordinator);
  SWITCHYARD_ASSIGN_OR_RETURN(const ReportInput input, GatherReport(client, context.JobName(job)));
  const std::string page = RenderHtmlReport(input);
  if (file == "-") {
    context.io.out << page;
    return kExitOk;
  }
  if (file.empty()) file = absl::StrCat(ShortName(input.job.name()), ".html");
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << page;
  out.close();
  if (!out) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write the report to ", file, "; give another place with -o FILE"));
  }
  if (context.options.json) {
    context.io.out << absl::StrFormat("{\"bytes\": %d}\n", page.size());
  } else {
    context.io.out << "Wrote " << file << " (" << FormatBytes(page.size()) << ")\n";
  }
  return kExitOk;
}

}  // namespace

void AddMetricsCommands(CLI::App& app, CommandBody& chosen) {
  auto job = std::make_shared<std::string>();
  CLI::App* experts =
      app.add_subcommand("experts", "Draw the newest load of every expert in every layer");
  experts->add_option("job", *job, "Job id or resource name")->required();
  experts->callback(
      [&chosen, job] { chosen = [job](CliContext& context) { return Experts(context, *job); }; });

  auto after_step = std::make_shared<int64_t>(0);
  auto samples = std::make_shared<int>(50);
  CLI::App* metrics = app.add_subcommand("metrics", "List a job's steps");
  metrics->add_option("job", *job, "Job id or resource name")->required();
  metrics->add_option("--after-step", *after_step, "Only steps after this one")
      ->check(CLI::NonNegativeNumber);
  metrics->add_option("--samples", *samples, "At most so many, thinned evenly")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  metrics->callback([&chosen, job, after_step, samples] {
    chosen = [=](CliContext& context) { return Metrics(context, *job, *after_step, *samples); };
  });

  auto file = std::make_shared<std::string>();
  CLI::App* report =
      app.add_subcommand("report", "Write a job's report, one HTML page with everything in it");
  report->add_option("job", *job, "Job id or resource name")->required();
  report->add_option("-o,--file", *file, "File to write; default JOB.html, - for standard output");
  report->callback([&chosen, job, file] {
    chosen = [=](CliContext& context) { return Report(context, *job, *file); };
  });
}

}  // namespace switchyard::coordinator
