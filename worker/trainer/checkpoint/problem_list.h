// Collects what is wrong with a checkpoint, to say it all at once but not endlessly.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace switchyard::trainer {

class ProblemList {
 public:
  // `kind` groups: "missing", "unexpected", ... in order of first use.
  void Add(const std::string& kind, const std::string& what) {
    for (auto& [name, entries] : kinds_) {
      if (name == kind) {
        entries.push_back(what);
        return;
      }
    }
    kinds_.push_back({kind, {what}});
  }
  bool empty() const { return kinds_.empty(); }

  // "missing (2): a, b; unexpected (1): c".
  std::string Text() const {
    std::vector<std::string> parts;
    for (const auto& [name, entries] : kinds_) {
      const size_t shown = entries.size() < kShown ? entries.size() : kShown;
      parts.push_back(absl::StrCat(name, " (", entries.size(), "): ",
                                   absl::StrJoin(entries.begin(), entries.begin() + shown, ", "),
                                   shown < entries.size() ? ", ..." : ""));
    }
    return absl::StrJoin(parts, "; ");
  }

 private:
  static constexpr size_t kShown = 8;
  std::vector<std::pair<std::string, std::vector<std::string>>> kinds_;
};

}  // namespace switchyard::trainer
