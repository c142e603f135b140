// Starts a child with nothing but what it needs: a process group, five or three descriptors, an
// environment.
//
// posix_spawn, never fork: gRPC's threads hold locks that a forked child would inherit.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"

namespace switchyard::agent {

// How the child talks. Its standard input is always /dev/null.
enum class Channel {
  kTrainer,     // 1 and 2 log, 3 lines to the agent, 4 lines from the agent
  kPreparation  // 1 lines to the agent, 2 log
};

struct SpawnRequest {
  std::string program;                   // path, or a name looked up in PATH
  std::vector<std::string> arguments;    // without the program's name
  std::vector<std::string> environment;  // NAME=value, all there is
  std::string directory;                 // working directory
  pid_t group = 0;  // process group to join; 0 for a new one named by the child's pid
  Channel channel = Channel::kTrainer;
};

struct SpawnedProcess {
  pid_t pid = 0;
  UniqueFd pidfd;     // readable when the process has ended
  UniqueFd log;       // non-blocking read end
  UniqueFd lines;     // non-blocking read end
  UniqueFd commands;  // non-blocking write end; invalid for kPreparation
};

// Errors name the program and what the system said.
absl::StatusOr<SpawnedProcess> Spawn(const SpawnRequest& request);

}  // namespace switchyard::agent
