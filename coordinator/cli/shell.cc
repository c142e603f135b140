// version and completion.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"

namespace switchyard::coordinator {
namespace {

// Options and subcommands of `app`, as bash words.
std::string Words(const CLI::App& app) {
  std::string words;
  for (const CLI::App* command : app.get_subcommands({}))
    absl::StrAppend(&words, command->get_name(), " ");
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) absl::StrAppend(&words, "--", name, " ");
  }
  return words;
}

// Made from the program's own commands, so that it can never be out of date. Job ids are asked of
// the coordinator when one answers.
std::string BashCompletion(const CLI::App& app) {
  std::string script =
      "_switchyard() {\n  local cur=${COMP_WORDS[COMP_CWORD]} command=\n  local i\n"
      "  for ((i = 1; i < COMP_CWORD; ++i)); do\n"
      "    [[ ${COMP_WORDS[i]} != -* ]] && { command=${COMP_WORDS[i]}; break; }\n  done\n"
      "  local words=\n  case $command in\n";
  absl::StrAppend(&script, "    '') words='", Words(app), "' ;;\n");
  std::string job_commands;
  for (const CLI::App* command : app.get_subcommands({})) {
    const CLI::Option* job = command->get_option_no_throw("job");
    if (job != nullptr)
      absl::StrAppend(&job_commands, job_commands.empty() ? "" : "|", command->get_name());
    absl::StrAppend(&script, "    ", command->get_name(), ") words='", Words(*command),
                    Words(app).substr(Words(app).find("--")), "' ;;\n");
  }
  absl::StrAppend(
      &script, "  esac\n  case $command in\n    ", job_commands,
      ") [[ $cur != -* ]] && words=$(switchyard jobs --retry-for 0 2>/dev/null | "
      "awk 'NR > 1 {print $1}') ;;\n"
      "    plan|submit) [[ $cur != -* ]] && { mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); "
      "return; } ;;\n  esac\n"
      "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n}\n"
      "complete -o filenames -F _switchyard switchyard\n");
  return script;
}

}  // namespace

void AddShellCommands(CLI::App& app, CommandBody& chosen) {
  app.add_subcommand("version", "Print the version")->callback([&chosen] {
    chosen = [](CliContext& context) -> absl::StatusOr<int> {
      if (context.options.json) {
        context.io.out << nlohmann::json{{"version", SWITCHYARD_VERSION}}.dump() << "\n";
      } else {
        context.io.out << "switchyard " << SWITCHYARD_VERSION << "\n";
      }
      return kExitOk;
    };
  });
  CLI::App* completion = app.add_subcommand("completion", "Print a completion script for a shell");
  completion->require_subcommand(1);
  completion->add_subcommand("bash", "For bash: source <(switchyard completion bash)")
      ->callback([&chosen, &app] {
        chosen = [&app](CliContext& context) -> absl::StatusOr<int> {
          context.io.out << BashCompletion(app);
          return kExitOk;
        };
      });
}

}  // namespace switchyard::coordinator
