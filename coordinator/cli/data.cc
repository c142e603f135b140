// data prepare: runs tools/prepare_data.py in the project's Python environment, with the same
// flags.
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/install_paths.h"

namespace switchyard::coordinator {
namespace {

// Replaces this process, so that output, signals and exit code are the tool's own.
absl::StatusOr<int> Prepare(CliContext& context, const std::vector<std::string>& arguments) {
  const std::string script = FindTool("prepare_data.py");
  if (script.empty()) {
    return absl::FailedPreconditionError(
        "tools/prepare_data.py was not found beside this program; set SWITCHYARD_TOOLS to its "
        "directory");
  }
  std::vector<std::string> words = {FindPython(), script};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  context.io.out << std::flush;
  execvp(argv[0], argv.data());
  return absl::FailedPreconditionError(
      absl::StrCat("cannot start ", words[0], ": ", std::strerror(errno),
                   "; set SWITCHYARD_PYTHON to a Python with transformers"));
}

}  // namespace

void AddDataCommands(CLI::App& app, CommandBody& chosen) {
  CLI::App* data = app.add_subcommand("data", "Training data");
  data->require_subcommand(1);
  CLI::App* prepare =
      data->add_subcommand("prepare", "Tokenise and pack a data file (flags: prepare --help)");
  // Every flag is the tool's, --help and --output too.
  prepare->fallthrough(false);
  prepare->set_help_flag();
  prepare->prefix_command();
  prepare->callback([&chosen, prepare] {
    const std::vector<std::string> arguments = prepare->remaining();
    chosen = [arguments](CliContext& context) { return Prepare(context, arguments); };
  });
}

}  // namespace switchyard::coordinator
