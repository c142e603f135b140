// Processes that an earlier incarnation of the agent left behind, and their shared memory.
//
// A trainer dies with its agent, but not always at once, and its descendants need not. Before slots
// are offered again nothing of an older attempt may be alive. Found by pid files (pid and start
// time, so that a reused pid is never hit) and by a mark in the environment that descendants
// inherit.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "switchyard/agent/v1/agent.pb.h"
#include "worker/agent/core/types.h"

namespace switchyard::agent {

// Environment entry of every process of an attempt.
std::string EnvironmentMark(const std::string& work_dir, const AttemptKey& key);

// WORK_DIR/attempts/{uid}/{epoch}/rank-N.pid (data preparation: rank -1), before the process is
// reported.
absl::Status WritePidFile(const std::string& work_dir, const ProcessKey& key, int slot,
                          int64_t pid);
// When the attempt's group is gone.
void RemovePidFiles(const std::string& work_dir, const GroupKey& key);
// Removes /dev/shm/switchyard-{uid}-{epoch}-*: what a killed trainer could not unlink itself.
void RemoveSharedMemory(const AttemptKey& key);

// Kills and awaits everything that pid files under WORK_DIR name and everything with their marks,
// removes the files, and returns a terminal status for each attempt found (rank code
// "AGENT_RESTARTED"). Waits at most `patience`; DeadlineExceeded names what is still alive then.
absl::StatusOr<std::vector<v1::AttemptStatus>> RemoveLeftovers(const std::string& work_dir,
                                                               std::chrono::milliseconds patience);

}  // namespace switchyard::agent
