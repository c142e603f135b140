// Filters of ListJobs and WatchJobs: terms joined by AND.
//
//   state=RUNNING AND terminal=false AND name="x" AND labels.team="x"
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "switchyard/v1/job.pb.h"

namespace switchyard::coordinator {

class JobFilter {
 public:
  // `parent` is "projects/{project}", "projects/-" or one job's name. InvalidArgument with violations.
  static absl::StatusOr<JobFilter> Parse(const std::string& parent, const std::string& filter,
                                         bool allow_job_parent);

  bool Matches(const v1::Job& job) const;
  // Matches the parent, whatever the terms say.
  bool MatchesParent(const v1::Job& job) const;
  // Name of the only job that can match by its parent; empty otherwise.
  const std::string& single_job() const { return single_job_; }
  // Binds page and resume tokens to the request.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  struct Term {
    enum Field { kState, kTerminal, kName, kLabel } field;
    std::string key;  // of a label
    std::string value;
  };

  std::string project_;  // empty: all
  std::string single_job_;
  std::string fingerprint_;
  std::vector<Term> terms_;
};

}  // namespace switchyard::coordinator
