// What `watch` shows, as text: the live block of a terminal, the lines of a pipe, the summary at
// the end.
//
// Pure: a model that is fed with what arrives, and functions from model to lines. Knows nothing of
// streams.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/cli/cli_context.h"
#include "switchyard/v1/job.pb.h"
#include "switchyard/v1/job_service.pb.h"
#include "switchyard/v1/metrics.pb.h"

namespace switchyard::coordinator {

class WatchModel {
 public:
  // Earlier steps, for the sparkline of a job that runs already.
  void Seed(const std::vector<v1::StepSample>& samples);
  void SetJob(const v1::Job& job) { job_ = job; }
  // A step again (a repeated attempt, or its held-out loss) replaces the old one and what came
  // after it.
  void AddStep(const v1::StepSample& sample);

  const v1::Job& job() const { return job_; }
  const v1::StepSample* newest() const { return steps_.empty() ? nullptr : &steps_.back(); }
  std::vector<double> Losses() const;
  // Phases of the newest steps with their shares of the steps' time, largest first.
  std::vector<std::pair<double, std::string>> PhaseShares() const;

 private:
  v1::Job job_;
  std::vector<v1::StepSample> steps_;  // in step order, newest kMaxSteps
};

struct WatchStyle {
  int width = 100;
  bool color = false;
  bool unicode = true;
};

// Lines of the live block, none wider than style.width. `note` (for example "reconnecting ...")
// comes last.
std::vector<std::string> WatchBlock(const WatchModel& model, const WatchStyle& style,
                                    absl::Time now, const std::string& note);

// One line for a pipe.
std::string JobLine(const v1::Job& job);
std::string StepLine(const v1::Job& job, const v1::StepSample& sample);
std::string EventLine(const v1::Event& event, bool color);

// What a user wants to know of a job that ended: outcome, held-out loss before and after, where the
// model is.
std::string FinalSummary(const v1::Job& job, bool color);

}  // namespace switchyard::coordinator
