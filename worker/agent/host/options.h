// Flags of switchyard-agent.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/agent/core/attempt.h"

namespace switchyard::agent {

struct AgentOptions {
  std::string coordinator = "127.0.0.1:7070";
  std::string node;                        // default: the host's name
  std::string for_attempt;                 // "{job_uid}/{epoch}"; empty: for whatever comes
  int cpu_slots = 0;                       // 0: GPUs, or without any a slot a core
  std::string metrics = "127.0.0.1:9465";  // "off" for none
  std::string work_dir;
  std::string fabric_address;    // of this node for peers; empty: the interface's
  std::string fabric_interface;  // empty: the one towards the coordinator
  std::string runtime;           // directory of an installed runtime, links resolved; empty: none
  std::string tls_dir;           // ca.crt, tls.crt, tls.key; empty: plain text
  bool plain_text = false;       // asked for, also to another machine
  std::vector<std::string> model_roots;
  std::vector<std::string> data_roots;
  std::vector<std::string> output_roots;
  std::string trainer;
  std::string python;
  std::string prepare_data;
  std::string self;                              // this program; set by ParseOptions
  int64_t log_cap_bytes = 64 << 20;              // of one file of one rank; two are kept
  int64_t data_cache_bytes = int64_t{32} << 30;  // 0: no cache
  Graces graces;
};

// Exit code for the caller when there is nothing to run: 0 after --help, 2 on a wrong command line.
struct ParseOutcome {
  int exit_code = 0;
};

// Fills in defaults that depend on where the program lies. On false, `outcome` was printed and set.
bool ParseOptions(int argc, char** argv, AgentOptions* options, ParseOutcome* outcome);
// Sentences about what is missing before anything is started.
absl::Status Validate(const AgentOptions& options);

}  // namespace switchyard::agent
