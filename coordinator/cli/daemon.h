// Processes that outlive this program: started detached, stopped by recorded pid.
//
// A pid alone says little: it may belong to another process by now. A record therefore holds the
// process's start time and the machine's boot id, and only a process that matches all of them is
// ever signalled.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace switchyard::coordinator {

struct Daemon {
  std::string name;     // "coordinator"
  std::string address;  // where it listens, for people
  std::string log;      // file with its output
  pid_t pid = 0;
  uint64_t start_ticks = 0;  // field 22 of /proc/PID/stat
  std::string boot_id;
};

// Starts `command` in a session of its own, standard input /dev/null, output appended to `log`.
absl::StatusOr<Daemon> StartDaemon(const std::string& name, const std::vector<std::string>& command,
                                   const std::string& log);
// Whether the recorded process itself still runs (a zombie does not).
bool IsRunning(const Daemon& daemon);
// SIGTERM, and SIGKILL after `grace`. OK when it is gone, also when it was gone before.
absl::Status StopDaemon(const Daemon& daemon, absl::Duration grace);

// The last lines of a file, for error messages.
std::vector<std::string> LastLines(const std::string& file, size_t count);

}  // namespace switchyard::coordinator
