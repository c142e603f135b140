// The coordinator's commands that set security up, apart from the service: init, issue-server,
// issue-agent, issue-client, revoke-agent, token. They work on a security directory, whether or not
// a coordinator runs with it.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/status.h"

namespace switchyard::coordinator {

// Adds the commands; the one that was given is put into `chosen`.
void AddSecurityCommands(CLI::App& app, std::function<absl::Status()>& chosen);

}  // namespace switchyard::coordinator
