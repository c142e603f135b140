// `switchyard-trainer bench`: how fast a model trains on this machine, with random weights and
// tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::trainer {

struct BenchOptions {
  std::string model_config;  // a config.json, or a directory that holds one
  int64_t layers = 0;        // replaces the configuration's; 0 keeps it
  int ranks = 1;
  int expert_parallel = 1;
  int64_t sequence_length = 512;
  int64_t documents = 1;  // packed into each sequence, of random lengths
  int64_t micro_batch = 1;
  int64_t accumulation = 1;
  int64_t steps = 10;  // measured, after `warmup` others
  int64_t warmup = 2;
  std::string device = "cpu";
  std::string dtype;                // "float32", "bfloat16"; empty: the device's usual one
  std::string optimizer = "exact";  // profile, or "none": forward and backward only
  std::string activation_memory;    // common/model/activation_memory.h; empty: as the plan prefers
  bool deterministic = false;
  double aux_loss_coef = 0;
  std::string trace;    // file for a Chrome trace of one more step on rank 0; empty for none
  bool phases = false;  // also tell the time of each phase
  std::string gate = "router";  // "router", "scattered" or "consecutive"
  std::string checkpoint;       // directory to save the model into and load it from; empty: do not
  bool calibrate = false;       // measure the device's rates instead; takes device, ranks and out
  std::string out;              // file to put the rates into; empty for none
  int threads = 0;
  int rank = -1;  // as RunOptions
};

// `arguments` are this program's, for the ranks that it starts. Prints a table; returns the process
// exit code.
int BenchCommand(const BenchOptions& options, const std::vector<std::string>& arguments);

}  // namespace switchyard::trainer
