// A job's report: one self-contained HTML page, readable without script, network or style sheets of
// others.
//
// Pure: everything it says is in its input. Knows nothing of RPCs, files or the terminal.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "switchyard/v1/event.pb.h"
#include "switchyard/v1/job.pb.h"
#include "switchyard/v1/metrics.pb.h"

namespace switchyard::coordinator {

struct ReportInput {
  v1::Job job;
  absl::Time now;                       // times of what has not ended run up to it
  std::vector<v1::StepSample> samples;  // in step order, possibly thinned
  std::vector<v1::Event> events;        // oldest first
  int64_t events_left_out = 0;          // older than these
  v1::ExpertLoad expert_load;           // no layers when none was reported
};

std::string RenderHtmlReport(const ReportInput& input);
// Its "<main>...</main>" alone, without inline styles, for a page that brings style and script
// itself.
std::string RenderReportMain(const ReportInput& input);

}  // namespace switchyard::coordinator
