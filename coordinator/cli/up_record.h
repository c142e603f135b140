// The record of `up` in its state directory: the daemons that it started, and with what options, so
// that `down` finds them and a later `up` can start again what has ended.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/cli/daemon.h"

namespace switchyard::coordinator {

// What both daemons are started with.
struct UpOptions {
  std::string listen;   // the coordinator's address
  std::string bin_dir;  // where the daemons are; empty: beside this program
  std::string metrics = "127.0.0.1:9464";
  std::string agent_metrics = "127.0.0.1:9465";
  int cpu_slots = 0;
  bool plain_text = false;
  bool secure = false;
  std::vector<std::string> roots;  // with secure: where models, data and outputs may be
};

struct UpRecord {
  std::optional<UpOptions> options;  // empty in a record of an older version
  std::vector<Daemon> daemons;       // in the order of their start

  // Null when none of that name is recorded.
  Daemon* Find(const std::string& name);
};

// A missing file is an empty record; an unreadable one an error that names it.
absl::StatusOr<UpRecord> ReadUpRecord(const std::string& file);
absl::Status WriteUpRecord(const std::string& file, const UpRecord& record);

}  // namespace switchyard::coordinator
