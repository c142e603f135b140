// The command groups; each adds its subcommands to the program. The chosen one's body is stored in
// `chosen`.
#pragma once

#include <CLI/CLI.hpp>

#include "coordinator/cli/cli_context.h"

namespace switchyard::coordinator {

void AddSubmitCommands(CLI::App& app, CommandBody& chosen);  // plan, submit
void AddJobCommands(CLI::App& app, CommandBody& chosen);     // jobs, get
void AddActionCommands(CLI::App& app, CommandBody& chosen);  // cancel, pause, resume, retry, delete
void AddWatchCommand(CLI::App& app, CommandBody& chosen);    // watch
void AddLogCommands(CLI::App& app, CommandBody& chosen);     // logs, events
void AddCheckpointCommands(CLI::App& app, CommandBody& chosen);  // checkpoints, checkpoint
void AddMetricsCommands(CLI::App& app, CommandBody& chosen);     // experts, metrics, report
void AddNodeCommands(CLI::App& app, CommandBody& chosen);        // nodes, node ...
void AddDoctorCommand(CLI::App& app, CommandBody& chosen);       // doctor
void AddTokenCommands(CLI::App& app, CommandBody& chosen);       // token ..., whoami
void AddDataCommands(CLI::App& app, CommandBody& chosen);        // data prepare
void AddLocalCommands(CLI::App& app, CommandBody& chosen);       // up, down
void AddShellCommands(CLI::App& app, CommandBody& chosen);       // version, completion

}  // namespace switchyard::coordinator
