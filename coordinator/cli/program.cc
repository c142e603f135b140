#include "coordinator/cli/program.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/error_text.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/suggest.h"

namespace switchyard::coordinator {
namespace {

void AddCommonOptions(CLI::App& app, CliOptions& options, std::string& output,
                      double& retry_seconds) {
  Endpoint& endpoint = options.coordinator;
  app.add_option("--coordinator", endpoint.address, "Address of the coordinator, HOST:PORT")
      ->envname("SWITCHYARD_COORDINATOR")
      ->capture_default_str();
  app.add_option("--ca", endpoint.authority,
                 "Certificate authority of the coordinator, a PEM file: speak TLS")
      ->envname("SWITCHYARD_CA");
  app.add_option("--token-file", endpoint.token_file, "File with the bearer token")
      ->envname("SWITCHYARD_TOKEN_FILE");
  app.add_flag("--plain-text", endpoint.plain_text,
               "Speak to a coordinator on another machine without TLS");
  // Never an option: command lines can be read by everybody on the machine.
  if (const char* token = std::getenv("SWITCHYARD_TOKEN")) endpoint.token = token;
  app.add_option("--project", options.project, "Project of the jobs; - for all, where it lists")
      ->envname("SWITCHYARD_PROJECT");
  app.add_option("--output", output, "table for people, json for programs")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  app.add_option("--retry-for", retry_seconds,
                 "Seconds to go on trying while no coordinator answers")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
}

// CLI11 says only that a command is missing; the word that was given and the nearest command say
// more.
std::string UnknownCommand(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  // What no command or option took; an option's value is none of it.
  for (const std::string& argument : app.remaining()) {
    if (argument.empty() || argument[0] == '-') continue;
    const std::string nearest = NearestName(argument, names);
    return absl::StrCat("\"", argument, "\" is not a command",
                        nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"?"));
  }
  return "";
}

int ReportParseError(CLI::App& app, const CLI::ParseError& error, CliIo& io) {
  if (error.get_exit_code() == 0) {  // --help
    app.exit(error, io.out, io.err);
    return kExitOk;
  }
  const std::string unknown = UnknownCommand(app);
  if (unknown.empty()) {
    app.exit(error, io.out, io.err);
  } else {
    io.err << unknown << "\nRun with --help for more information.\n";
  }
  return kExitUsage;
}

}  // namespace

int RunCli(const std::vector<std::string>& arguments, CliIo& io) {
  CLI::App app("Fine-tune Mixture-of-Experts models on your own machines.", "switchyard");
  CliContext context{.options = {}, .io = io};
  std::string output = "table";
  double retry_seconds = absl::ToDoubleSeconds(context.options.retry_for);
  CommandBody chosen;
  app.fallthrough();  // common options may stand after the command too
  app.require_subcommand(1);
  AddCommonOptions(app, context.options, output, retry_seconds);
  AddSubmitCommands(app, chosen);
  AddJobCommands(app, chosen);
  AddWatchCommand(app, chosen);
  AddActionCommands(app, chosen);
  AddLogCommands(app, chosen);
  AddCheckpointCommands(app, chosen);
  AddMetricsCommands(app, chosen);
  AddNodeCommands(app, chosen);
  AddDoctorCommand(app, chosen);
  AddTokenCommands(app, chosen);
  AddDataCommands(app, chosen);
  AddLocalCommands(app, chosen);
  AddShellCommands(app, chosen);
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    return ReportParseError(app, error, io);
  }
  context.options.json = output == "json";
  context.options.retry_for = absl::Seconds(retry_seconds);
  const absl::StatusOr<int> result = chosen(context);
  if (result.ok()) return *result;
  io.err << (context.options.json ? ErrorJson(result.status())
                                  : ErrorText(result.status(), io.color))
         << std::flush;
  return ExitCodeOf(result.status());
}

}  // namespace switchyard::coordinator
