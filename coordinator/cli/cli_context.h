// What every command gets: where to write, what was asked of all commands, and the coordinator's
// address.
#pragma once

#include <functional>
#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace CLI {
class App;
}

namespace switchyard::coordinator {

// The terminal, or what stands for it.
struct CliIo {
  std::ostream& out;
  std::ostream& err;
  bool terminal = false;  // `out` is a terminal: live output, colours
  bool color = false;
  bool unicode = true;  // blocks and sparklines may be used
  int width = 100;      // columns
};

// Where the coordinator is and how to reach it safely.
struct Endpoint {
  std::string address = "127.0.0.1:7070";
  std::string authority;    // PEM file of whom to trust; empty: plain text
  std::string token_file;   // with the bearer token
  std::string token;        // or the token itself, from the environment
  bool plain_text = false;  // asked for, also beyond loopback
};

// Options before or after any command.
struct CliOptions {
  Endpoint coordinator;
  std::string project;  // empty: "default", or what the spec says
  bool json = false;
  // How long a command goes on trying while no coordinator answers, where trying again is safe.
  absl::Duration retry_for = absl::Seconds(10);
};

struct CliContext {
  CliOptions options;
  CliIo& io;

  std::string Project() const { return options.project.empty() ? "default" : options.project; }
  // "ID" or a whole resource name to "projects/P/jobs/ID".
  std::string JobName(const std::string& job) const {
    if (job.rfind("projects/", 0) == 0) return job;
    return "projects/" + Project() + "/jobs/" + job;
  }
};

// The last part of a resource name.
inline std::string ShortName(const std::string& name) { return name.substr(name.rfind('/') + 1); }

// A parsed command: returns the exit code, or an error that the caller prints.
using CommandBody = std::function<absl::StatusOr<int>(CliContext&)>;

}  // namespace switchyard::coordinator
