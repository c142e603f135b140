// plan and submit.
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/json_text.h"
#include "coordinator/cli/spec_file.h"
#include "coordinator/cli/watch.h"
#include "coordinator/plan/plan_text.h"

namespace switchyard::coordinator {
namespace {

struct SubmitArguments {
  std::string file;
  std::string job_id;
  std::string request_id;
  bool watch = false;
};

absl::StatusOr<v1::JobSpec> ReadSpec(const CliContext& context, const std::string& file) {
  SWITCHYARD_ASSIGN_OR_RETURN(v1::JobSpec spec, ReadSpecFile(file));
  if (!context.options.project.empty()) spec.set_project(context.options.project);
  return spec;
}

absl::StatusOr<int> Plan(CliContext& context, const std::string& file) {
  v1::PlanJobRequest request;
  SWITCHYARD_ASSIGN_OR_RETURN(*request.mutable_spec(), ReadSpec(context, file));
  const ApiClient client(context.options.coordinator);
  SWITCHYARD_ASSIGN_OR_RETURN(
      const v1::PlanJobResponse response,
      client.Call(&v1::JobService::Stub::PlanJob, client.jobs(), request, absl::Seconds(60)));
  if (context.options.json) {
    context.io.out << JsonText(response.plan());
  } else {
    context.io.out << RenderPlan(response.plan(), {.color = context.io.color});
  }
  return response.plan().feasible() ? kExitOk : kExitUsage;
}

// Tries again while nobody answers: the request id makes a second call harmless.
absl::StatusOr<v1::Job> Create(const ApiClient& client, CliContext& context,
                               const v1::CreateJobRequest& request) {
  const absl::Time deadline = absl::Now() + context.options.retry_for;
  for (int attempt = 0;; ++attempt) {
    auto job =
        client.Call(&v1::JobService::Stub::CreateJob, client.jobs(), request, absl::Seconds(60));
    const bool retry =
        job.status().code() == absl::StatusCode::kUnavailable && absl::Now() < deadline;
    if (!retry) return job;
    if (attempt == 0) {
      context.io.err << "No coordinator answers at " << context.options.coordinator.address
                     << "; trying again for " << absl::FormatDuration(context.options.retry_for)
                     << ".\n"
                     << std::flush;
    }
    SleepBeforeReconnect(attempt);
  }
}

absl::StatusOr<int> Submit(CliContext& context, const SubmitArguments& arguments) {
  v1::CreateJobRequest request;
  SWITCHYARD_ASSIGN_OR_RETURN(*request.mutable_spec(), ReadSpec(context, arguments.file));
  request.set_job_id(arguments.job_id);
  request.set_request_id(arguments.request_id.empty() ? RandomRequestId() : arguments.request_id);
  const ApiClient client(context.options.coordinator);
  const auto job = Create(client, context, request);
  if (!job.ok()) {
    context.io.err << "Request id " << request.request_id()
                   << ": to try again without the risk of a second job, add --request-id "
                   << request.request_id() << "\n";
    return job.status();
  }
  if (context.options.json) {
    context.io.out << (arguments.watch ? JsonLine(*job) : JsonText(*job)) << std::flush;
  } else {
    if (job->has_plan()) context.io.out << RenderPlan(job->plan(), {.color = context.io.color});
    context.io.out << "Submitted " << job->name() << "\n" << std::flush;
    if (!arguments.watch) {
      context.io.out << "Follow it with: switchyard watch " << ShortName(job->name()) << "\n";
    }
  }
  if (!arguments.watch) return kExitOk;
  return FollowJob(client, context, job->name());
}

}  // namespace

void AddSubmitCommands(CLI::App& app, CommandBody& chosen) {
  auto file = std::make_shared<std::string>();
  CLI::App* plan =
      app.add_subcommand("plan", "Show mesh, memory, speed and time of a job without creating it");
  plan->add_option("spec", *file, "Job spec, YAML or JSON; - for standard input")->required();
  plan->callback(
      [&chosen, file] { chosen = [file](CliContext& context) { return Plan(context, *file); }; });

  auto arguments = std::make_shared<SubmitArguments>();
  CLI::App* submit = app.add_subcommand("submit", "Create a job");
  submit->add_option("spec", arguments->file, "Job spec, YAML or JSON; - for standard input")
      ->required();
  submit->add_flag("--watch,-w", arguments->watch, "Follow the job to its end");
  submit->add_option("--job-id", arguments->job_id,
                     "Last part of the job's name; default from spec.name");
  submit->add_option("--request-id", arguments->request_id,
                     "Unique text of this request; a second submit with it returns the first job");
  submit->callback([&chosen, arguments] {
    chosen = [arguments](CliContext& context) { return Submit(context, *arguments); };
  });
}

}  // namespace switchyard::coordinator
