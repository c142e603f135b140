// Splits a byte stream into lines of bounded length.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace switchyard::agent {

class LineReader {
 public:
  explicit LineReader(size_t max_line_bytes = 1 << 20) : max_line_bytes_(max_line_bytes) {}

  // Calls on_line(absl::string_view) for every line completed by `bytes`, without its newline, and
  // on_too_long() once for every line above the bound, which is dropped whole. Empty lines are
  // skipped.
  template <typename OnLine, typename OnTooLong>
  void Feed(absl::string_view bytes, OnLine on_line, OnTooLong on_too_long) {
    while (!bytes.empty()) {
      const size_t newline = bytes.find('\n');
      const absl::string_view part = bytes.substr(0, newline);
      if (!skipping_ && pending_.size() + part.size() > max_line_bytes_) {
        skipping_ = true;
        pending_.clear();
        on_too_long();
      }
      if (!skipping_) pending_.append(part.data(), part.size());
      if (newline == absl::string_view::npos) return;
      if (!skipping_ && !pending_.empty()) on_line(absl::string_view(pending_));
      pending_.clear();
      skipping_ = false;
      bytes.remove_prefix(newline + 1);
    }
  }

 private:
  size_t max_line_bytes_;
  std::string pending_;
  bool skipping_ = false;
};

}  // namespace switchyard::agent
