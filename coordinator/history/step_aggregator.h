// Joins the step lines of all ranks of an attempt into one sample a step. Pure.
//
// Global values (loss, norms, counts) are the same on every rank; time and memory are the slowest's
// and largest's; phases are rank 0's. Lines may be missing: a step is told when all ranks reported
// it, or when a rank is two steps ahead of it.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "switchyard/agent/v1/agent.pb.h"
#include "switchyard/v1/metrics.pb.h"

namespace switchyard::coordinator {

class StepAggregator {
 public:
  StepAggregator(int world, int64_t epoch) : world_(world), epoch_(epoch) {}

  int64_t epoch() const { return epoch_; }
  // Steps that became complete, in order.
  std::vector<v1::StepSample> Add(int rank, const trainer::v1::Step& step);
  // The sample of `eval.step` with its held-out loss, once more; empty when that step was never
  // told.
  std::vector<v1::StepSample> AddEval(const trainer::v1::Eval& eval);

 private:
  struct Open {
    v1::StepSample sample;
    std::set<int> ranks;
  };

  v1::StepSample Finish(Open open);

  int world_;
  int64_t epoch_;
  int64_t told_ = 0;  // steps up to here were told
  std::map<int64_t, Open> open_;
  v1::StepSample last_;
  std::map<int64_t, double> early_evals_;  // of steps not told yet
};

}  // namespace switchyard::coordinator
