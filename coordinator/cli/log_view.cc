#include "coordinator/cli/log_view.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/text_table.h"

namespace switchyard::coordinator {
namespace {

std::string GapText(const std::string& reason) {
  if (reason == "NEVER_CAPTURED") return "lines are missing here: they were never captured";
  if (reason == "EXPIRED") return "older lines are no longer kept";
  if (reason == "NODE_LOST") return "lines are missing here: their node was lost";
  return absl::StrCat("lines are missing here: ", reason);
}

}  // namespace

bool LogPrinter::Advance(v1::StreamLogsResponse& chunk) {
  int64_t& next = next_offset_[{chunk.epoch(), chunk.rank()}];
  const int64_t end = chunk.offset() + static_cast<int64_t>(chunk.text().size());
  if (end <= next) return next == 0 && !chunk.gap_reason().empty();
  if (chunk.offset() < next) {
    chunk.mutable_text()->erase(0, next - chunk.offset());
    chunk.set_offset(next);
    chunk.clear_gap_reason();
  }
  next = end;
  return true;
}

std::string LogPrinter::Text(const v1::StreamLogsResponse& chunk) const {
  const std::string source = chunk.rank() < 0 ? "prepare" : absl::StrCat("rank ", chunk.rank());
  const std::string prefix =
      with_rank_ ? absl::StrCat(Colored(absl::StrCat("[", source, "]"), "\033[2m", color_), " ")
                 : "";
  std::string text;
  if (!chunk.gap_reason().empty())
    absl::StrAppend(&text, prefix, "... ", GapText(chunk.gap_reason()), "\n");
  if (chunk.text().empty()) return text;
  std::string body = chunk.text();
  if (body.back() == '\n') body.pop_back();
  for (absl::string_view line : absl::StrSplit(body, '\n')) {
    absl::StrAppend(&text, prefix, Printable(std::string(line)), "\n");
  }
  return text;
}

}  // namespace switchyard::coordinator
