// Log chunks as text, each byte once even when a stream starts again.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "switchyard/v1/job_service.pb.h"

namespace switchyard::coordinator {

class LogPrinter {
 public:
  LogPrinter(bool with_rank, bool color) : with_rank_(with_rank), color_(color) {}

  // Cuts from `chunk` what was seen before; false when nothing is left.
  bool Advance(v1::StreamLogsResponse& chunk);
  // "[rank 3] line", with a note where lines are missing.
  std::string Text(const v1::StreamLogsResponse& chunk) const;

 private:
  bool with_rank_;
  bool color_;
  std::map<std::pair<int64_t, int32_t>, int64_t> next_offset_;
};

}  // namespace switchyard::coordinator
