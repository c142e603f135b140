// checkpoints and checkpoint.
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/fetch.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/json_text.h"
#include "coordinator/cli/text_table.h"

namespace switchyard::coordinator {
namespace {

std::string CheckpointStateWord(v1::CheckpointState state) {
  const std::string name = v1::CheckpointState_Name(state);
  return name.empty() ? absl::StrCat("state ", state)
                      : absl::AsciiStrToLower(name.substr(sizeof("CHECKPOINT_STATE_") - 1));
}

absl::StatusOr<int> List(CliContext& context, const std::string& job) {
  const ApiClient client(context.options.coordinator);
  SWITCHYARD_ASSIGN_OR_RETURN(const v1::ListCheckpointsResponse checkpoints,
                              FetchCheckpoints(client, context.JobName(job)));
  if (context.options.json) {
    context.io.out << JsonText(checkpoints);
    return kExitOk;
  }
  TextTable table({"STEP", "STATE", "SIZE", "HELD-OUT LOSS", "CREATED", "PATH"});
  table.AlignRight(0);
  for (const v1::Checkpoint& checkpoint : checkpoints.checkpoints()) {
    table.AddRow(
        {absl::StrCat(checkpoint.step()),
         absl::StrCat(CheckpointStateWord(checkpoint.state()), checkpoint.final() ? ", final" : ""),
         FormatBytes(checkpoint.bytes()),
         checkpoint.has_eval_loss() ? absl::StrFormat("%.4f", checkpoint.eval_loss()) : "-",
         TimeText(checkpoint.create_time()), Printable(checkpoint.path())});
  }
  context.io.out << (table.empty() ? "No checkpoints.\n" : table.Render());
  return kExitOk;
}

absl::StatusOr<int> Save(CliContext& context, const std::string& job) {
  const ApiClient client(context.options.coordinator);
  v1::CreateCheckpointRequest request;
  request.set_parent(context.JobName(job));
  SWITCHYARD_ASSIGN_OR_RETURN(
      const v1::CreateCheckpointResponse response,
      client.Call(&v1::CheckpointService::Stub::CreateCheckpoint, client.checkpoints(), request));
  if (context.options.json) {
    context.io.out << JsonText(response);
  } else {
    context.io.out << "Asked " << ShortName(request.parent())
                   << " to save at its next step boundary; see: switchyard checkpoints "
                   << ShortName(request.parent()) << "\n";
  }
  return kExitOk;
}

}  // namespace

void AddCheckpointCommands(CLI::App& app, CommandBody& chosen) {
  auto job = std::make_shared<std::string>();
  CLI::App* list = app.add_subcommand("checkpoints", "List a job's checkpoints, newest first");
  list->add_option("job", *job, "Job id or resource name")->required();
  list->callback(
      [&chosen, job] { chosen = [job](CliContext& context) { return List(context, *job); }; });
  CLI::App* save = app.add_subcommand("checkpoint", "Ask a running job to save now");
  save->add_option("job", *job, "Job id or resource name")->required();
  save->callback(
      [&chosen, job] { chosen = [job](CliContext& context) { return Save(context, *job); }; });
}

}  // namespace switchyard::coordinator
