// From spec, model and inventory to mesh, micro-batch, memory and time. Pure: no clock, no file, no
// network.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/model/model_shape.h"
#include "coordinator/plan/device_rates.h"
#include "switchyard/v1/job.pb.h"
#include "switchyard/v1/plan.pb.h"

namespace switchyard::coordinator {

// One slot that the planner may use, free or not: a plan says what could run on these nodes, the
// scheduler says when.
struct PlannerSlot {
  std::string node;
  int index = 0;
  std::string device;  // "cpu" or "cuda"
  std::string product;
  int64_t memory_bytes = 0;   // what a rank in it may use
  std::string memory_domain;  // CPU ranks of one job must share it
  int cpu_cores = 0;          // of the node
  int node_slots = 0;         // slots of the node
};

struct PlanInput {
  v1::JobSpec spec;
  ModelShape model;
  int64_t checkpoint_model_bytes = 0;  // bytes of the input's *.safetensors; the output is as large
  std::optional<int64_t> train_sequences;  // packed sequences, when the data is prepared
  std::vector<PlannerSlot> slots;
  int64_t disk_free_bytes = -1;             // under checkpoint.output; -1 unknown
  std::vector<CalibratedRates> calibrated;  // come before the built-in table
};

// Always returns a plan: feasible, or with problems and the nearest feasible choice.
v1::Plan MakePlan(const PlanInput& input);

}  // namespace switchyard::coordinator
