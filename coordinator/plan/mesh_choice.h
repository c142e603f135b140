// Every mesh and micro-batch that the spec and the slots allow, each with its memory and predicted
// speed. Of the choices of activation memory each takes the one that recomputes least and fits;
// those that it had to pass over are candidates that do not fit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/plan/memory_model.h"
#include "coordinator/plan/planner.h"
#include "coordinator/plan/resolved_job.h"
#include "coordinator/plan/throughput_model.h"

namespace switchyard::coordinator {

enum class Verdict { kFits, kDoesNotFit, kCannotBePlaced };

struct Candidate {
  int ranks = 1;
  int expert_parallel = 1;
  int64_t micro_batch = 1;   // sequences
  int64_t accumulation = 1;  // micro-batches a step
  Verdict verdict = Verdict::kFits;
  MemoryPlan memory;
  bool activations_by_trainer = true;  // memory.activations is what it takes by itself
  int64_t capacity_bytes = 0;  // smallest slot of the best placement; 0 when it cannot be placed
  DeviceRates rates;           // of the slowest device in it
  StepTime step;
  double tokens_per_second = 0;  // over all ranks
};

// All candidates, best first: those that fit by predicted speed, then those that do not by need of
// memory, then those that no placement exists for. Ties go to fewer ranks, then less expert
// parallelism.
std::vector<Candidate> ListCandidates(const PlanInput& input, const ResolvedJob& job);

// Slots of the job's device that one mesh may use together: on CPU those of the largest memory
// domain.
int UsableSlots(const PlanInput& input, const ResolvedJob& job);

}  // namespace switchyard::coordinator
