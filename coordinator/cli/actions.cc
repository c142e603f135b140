// cancel, pause, resume, retry, delete.
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/json_text.h"
#include "coordinator/cli/watch_view.h"

namespace switchyard::coordinator {
namespace {

template <typename Request>
using JobMethod = grpc::Status (v1::JobService::Stub::*)(grpc::ClientContext*, const Request&,
                                                         v1::Job*);

// A command whose request is a name and whose answer is the job.
template <typename Request>
void AddAction(CLI::App& app, CommandBody& chosen, const char* verb, const char* help,
               JobMethod<Request> method) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(verb, help);
  command->add_option("job", *name, "Job id or resource name")->required();
  command->callback([&chosen, name, method] {
    chosen = [name, method](CliContext& context) -> absl::StatusOr<int> {
      const ApiClient client(context.options.coordinator);
      Request request;
      request.set_name(context.JobName(*name));
      SWITCHYARD_ASSIGN_OR_RETURN(const v1::Job job, client.Call(method, client.jobs(), request));
      if (context.options.json) {
        context.io.out << JsonText(job);
      } else {
        context.io.out << ShortName(job.name()) << ": " << JobLine(job) << "\n";
      }
      return kExitOk;
    };
  });
}

absl::StatusOr<int> Delete(CliContext& context, const std::string& name) {
  const ApiClient client(context.options.coordinator);
  v1::DeleteJobRequest request;
  request.set_name(context.JobName(name));
  SWITCHYARD_ASSIGN_OR_RETURN(
      const v1::DeleteJobResponse response,
      client.Call(&v1::JobService::Stub::DeleteJob, client.jobs(), request));
  if (context.options.json) {
    context.io.out << JsonText(response);
  } else {
    context.io.out << "Deleted " << request.name() << "; its output directory stays.\n";
  }
  return kExitOk;
}

}  // namespace

void AddActionCommands(CLI::App& app, CommandBody& chosen) {
  using Stub = v1::JobService::Stub;
  AddAction<v1::CancelJobRequest>(app, chosen, "cancel", "Stop a job for good", &Stub::CancelJob);
  AddAction<v1::PauseJobRequest>(app, chosen, "pause", "Save a checkpoint and give the slots back",
                                 &Stub::PauseJob);
  AddAction<v1::ResumeJobRequest>(app, chosen, "resume", "Queue a paused job again",
                                  &Stub::ResumeJob);
  AddAction<v1::RetryJobRequest>(
      app, chosen, "retry", "Queue a failed or cancelled job again, from its newest checkpoint",
      &Stub::RetryJob);
  auto name = std::make_shared<std::string>();
  CLI::App* remove =
      app.add_subcommand("delete", "Stop a job if it runs and forget it; its output stays");
  remove->add_option("job", *name, "Job id or resource name")->required();
  remove->callback(
      [&chosen, name] { chosen = [name](CliContext& context) { return Delete(context, *name); }; });
}

}  // namespace switchyard::coordinator
