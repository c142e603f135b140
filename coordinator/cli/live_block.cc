#include "coordinator/cli/live_block.h"

#include "absl/strings/str_cat.h"

namespace switchyard::coordinator {

void LiveBlock::Draw(const std::vector<std::string>& lines) {
  // One write of everything: no flicker, and no half-drawn block when the program is stopped.
  std::string text;
  if (height_ > 0) absl::StrAppend(&text, "\033[", height_, "A");
  for (const std::string& line : lines) absl::StrAppend(&text, "\r\033[2K", line, "\n");
  absl::StrAppend(&text, "\033[J");
  out_ << text << std::flush;
  height_ = lines.size();
}

void LiveBlock::Erase() {
  if (height_ > 0) out_ << absl::StrCat("\033[", height_, "A\r\033[J") << std::flush;
  height_ = 0;
}

void LiveBlock::PrintAbove(const std::string& line) {
  Erase();
  out_ << line << "\n" << std::flush;
}

}  // namespace switchyard::coordinator
