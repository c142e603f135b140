// The program `switchyard`: parses the command line, runs the chosen command, prints errors.
#pragma once

#include <string>
#include <vector>

#include "coordinator/cli/cli_context.h"

namespace switchyard::coordinator {

// `arguments` without the program's name. Returns the exit code (exit_codes.h).
int RunCli(const std::vector<std::string>& arguments, CliIo& io);

}  // namespace switchyard::coordinator
