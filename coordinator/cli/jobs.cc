// jobs and get.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/job_view.h"
#include "coordinator/cli/json_text.h"

namespace switchyard::coordinator {
namespace {

absl::StatusOr<int> ListJobs(CliContext& context, const std::string& filter, int limit) {
  const ApiClient client(context.options.coordinator);
  v1::ListJobsRequest request;
  request.set_parent(absl::StrCat("projects/", context.Project()));
  request.set_filter(filter);
  v1::ListJobsResponse all;
  do {
    request.set_page_size(std::min(limit - all.jobs_size(), 1000));
    SWITCHYARD_ASSIGN_OR_RETURN(
        const v1::ListJobsResponse page,
        client.Call(&v1::JobService::Stub::ListJobs, client.jobs(), request));
    all.mutable_jobs()->MergeFrom(page.jobs());
    all.set_next_page_token(page.next_page_token());
    request.set_page_token(page.next_page_token());
  } while (!all.next_page_token().empty() && all.jobs_size() < limit);
  if (context.options.json) {
    context.io.out << JsonText(all);
    return kExitOk;
  }
  if (all.jobs().empty()) {
    context.io.out << "No jobs in project " << context.Project()
                   << (filter.empty() ? ". Create one with: switchyard submit job.yaml\n"
                                      : " match the filter.\n");
    return kExitOk;
  }
  context.io.out << JobTable(all, absl::Now(), context.Project() == "-", context.io.color);
  if (!all.next_page_token().empty()) {
    context.io.out << "There are more: use --filter or a larger --limit.\n";
  }
  return kExitOk;
}

absl::StatusOr<int> Get(CliContext& context, const std::string& job_argument) {
  const ApiClient client(context.options.coordinator);
  v1::GetJobRequest request;
  request.set_name(context.JobName(job_argument));
  SWITCHYARD_ASSIGN_OR_RETURN(const v1::Job job,
                              client.Call(&v1::JobService::Stub::GetJob, client.jobs(), request));
  if (context.options.json) {
    context.io.out << JsonText(job);
  } else {
    context.io.out << JobDescription(job, absl::Now(), context.io.color);
  }
  return kExitOk;
}

}  // namespace

void AddJobCommands(CLI::App& app, CommandBody& chosen) {
  auto filter = std::make_shared<std::string>();
  auto limit = std::make_shared<int>(100);
  CLI::App* jobs = app.add_subcommand("jobs", "List jobs, newest first");
  jobs->add_option("--filter", *filter, "For example: state=RUNNING AND labels.team=\"x\"");
  jobs->add_option("--limit", *limit, "At most so many")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  jobs->callback([&chosen, filter, limit] {
    chosen = [filter, limit](CliContext& context) { return ListJobs(context, *filter, *limit); };
  });

  auto name = std::make_shared<std::string>();
  CLI::App* get =
      app.add_subcommand("get", "Show one job: state and why, progress, plan, attempts");
  get->add_option("job", *name, "Job id or resource name")->required();
  get->callback(
      [&chosen, name] { chosen = [name](CliContext& context) { return Get(context, *name); }; });
}

}  // namespace switchyard::coordinator
