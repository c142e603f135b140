// A job's spec with every default filled that the planner decides, and the choices read as types.
// Pure.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/model/rank_memory.h"
#include "coordinator/plan/planner.h"

namespace switchyard::coordinator {

struct ResolvedJob {
  v1::JobSpec spec;    // all defaults filled but mesh.ranks, expert_parallel and the micro-batch
  std::string device;  // "cpu" or "cuda"
  DeviceKind device_kind = DeviceKind::kCpu;
  Precision precision = Precision::kFloat32;
  OptimizerProfile optimizer = OptimizerProfile::kExact;
  int64_t global_batch = 1;                                   // sequences
  int64_t sequence_length = 1;                                // tokens
  std::vector<std::pair<std::string, std::string>> defaults;  // field -> value, in the order filled
};

ResolvedJob ResolveJob(const PlanInput& input);

const char* PrecisionName(Precision precision);
const char* OptimizerName(OptimizerProfile optimizer);

}  // namespace switchyard::coordinator
