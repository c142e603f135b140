// The lines between agent and trainer as JSON text: schema proto/switchyard/trainer/v1/lines.proto.
//
// Pure; written by the trainer with nlohmann-json, read by the agent with protobuf's JSON.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace switchyard::trainer {

struct StepReport {
  int64_t step = 0;  // 1-based
  double loss = 0;
  double aux_loss = 0;
  double learning_rate = 0;
  double grad_norm = 0;
  int64_t tokens = 0;
  int64_t targets = 0;
  double step_seconds = 0;
  std::map<std::string, double> phase_seconds;
  int64_t peak_memory_bytes = 0;
  bool skipped = false;
  double expert_load_max_over_mean = 0;  // of the newest sampled step
  int64_t dead_experts = 0;
  double router_entropy_ratio = 0;
  int64_t arena_high_water_bytes = 0;
};

struct ExpertLoadReport {
  int64_t step = 0;
  int64_t num_experts = 0;
  std::vector<int> layers;                              // decoder layer of each row
  std::vector<std::vector<int64_t>> tokens_per_expert;  // one row a MoE layer
};

struct CheckpointShardReport {
  int rank = 0;
  int64_t step = 0;
  std::string stage_path;
  std::string final_path;
  bool final = false;
  int64_t bytes = 0;
};

// Each is one line without its newline.
std::string RendezvousLine(const std::string& id);
std::string ReadyLine(int rank, int64_t resumed_from_step, int64_t arena_bytes);
std::string PhaseLine(const std::string& name, double progress);
std::string StepLine(const StepReport& report);
std::string EvalLine(int64_t step, double loss, int64_t targets);
std::string ExpertLoadLine(const ExpertLoadReport& report);
std::string CheckpointShardLine(const CheckpointShardReport& report);
std::string ExitLine(const std::string& code, const std::string& message, int64_t step);

// A line from the agent. Unknown lines and fields are ignored: all members stay empty.
struct AgentLine {
  std::optional<std::string> rendezvous_id;
  bool checkpoint_now = false;
  bool then_stop = false;
  bool stop = false;
  std::string stop_reason;
};
AgentLine ParseAgentLine(const std::string& line);

}  // namespace switchyard::trainer
