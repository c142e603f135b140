// Predicted time of an optimizer step from measured rates. Pure arithmetic; what it does not know
// (other load on the machine, stragglers) it does not guess.
#pragma once

#include <cstdint>

#include "common/model/rank_memory.h"
#include "coordinator/plan/device_rates.h"

namespace switchyard::coordinator {

struct ThroughputInput {
  RankMemoryInput rank;  // model, mesh and batch
  DeviceRates rates;
  double devices = 1;  // of `rates` a rank has: 1 GPU, or so many cores
  int nodes = 1;       // that the mesh spans
};

// Seconds of one optimizer step by what takes them. Nothing is assumed to overlap.
struct StepTime {
  double compute = 0;    // GEMMs, attention, elementwise passes
  double exchange = 0;   // dispatch and combine of tokens
  double reduction = 0;  // gradients and parameters of ZeRO-1
  double optimizer = 0;
  double overhead = 0;  // fixed cost of layers and meetings
  double launch = 0;    // for which the device waits for the host to enqueue
  double Total() const { return compute + exchange + reduction + optimizer + overhead + launch; }
};

StepTime PredictStep(const ThroughputInput& input);

// Other ranks of an ep group that a token's k experts lie on, on average under even routing.
double ExpectedRemoteRanks(int64_t experts, int64_t experts_per_token, int64_t expert_parallel);

}  // namespace switchyard::coordinator
