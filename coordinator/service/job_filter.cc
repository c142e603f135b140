#include "coordinator/service/job_filter.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/rpc/violations.h"
#include "coordinator/job/job_state.h"
#include "coordinator/job/names.h"

namespace switchyard::coordinator {
namespace {

constexpr size_t kMaxFilterBytes = 1024;

uint64_t Hash(const std::string& text) {  // FNV-1a
  uint64_t hash = 14695981039346656037u;
  for (const unsigned char c : text) hash = (hash ^ c) * 1099511628211u;
  return hash;
}

std::string Unquote(std::string value) {
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
    return value.substr(1, value.size() - 2);
  }
  return value;
}

}  // namespace

absl::StatusOr<JobFilter> JobFilter::Parse(const std::string& parent, const std::string& filter,
                                           bool allow_job_parent) {
  JobFilter result;
  std::vector<rpc::Violation> violations;
  if (const auto project = ParseProjectName(parent)) {
    if (*project != "-") result.project_ = *project;
  } else if (allow_job_parent && ParseJobName(parent)) {
    result.single_job_ = parent;
  } else {
    violations.push_back(
        {"parent",
         absl::StrCat("is \"", parent, "\"; give \"projects/{project}\", or \"projects/-\" for all",
                      allow_job_parent ? ", or \"projects/{project}/jobs/{job_id}\"" : "")});
  }
  if (filter.size() > kMaxFilterBytes) {
    violations.push_back(
        {"filter", absl::StrCat("has ", filter.size(), " bytes; at most ", kMaxFilterBytes)});
  } else if (!filter.empty()) {
    const std::vector<std::string> parts = absl::StrSplit(filter, " AND ");
    for (const std::string& part : parts) {
      const std::string text(absl::StripAsciiWhitespace(part));
      const size_t equals = text.find('=');
      const std::string key = text.substr(0, equals);
      const std::string given = equals == std::string::npos ? "" : text.substr(equals + 1);
      const std::string value = Unquote(given);
      v1::JobState state;
      if (key == "state" && v1::JobState_Parse("JOB_STATE_" + value, &state)) {
        result.terms_.push_back({Term::kState, "", value});
      } else if (key == "terminal" && (value == "true" || value == "false")) {
        result.terms_.push_back({Term::kTerminal, "", value});
      } else if (key == "name" && !value.empty()) {
        result.terms_.push_back({Term::kName, "", value});
      } else if (key.rfind("labels.", 0) == 0 && key.size() > 7 && !given.empty()) {
        result.terms_.push_back({Term::kLabel, key.substr(7), value});
      } else {
        violations.push_back(
            {"filter", absl::StrFormat("has the term \"%s\"; terms are state=RUNNING, "
                                       "terminal=false, name=\"x\" and labels.key=\"x\", "
                                       "joined by AND",
                                       text)});
      }
    }
  }
  if (!violations.empty()) return rpc::InvalidArgument(violations);
  result.fingerprint_ = absl::StrFormat("%x", Hash(parent + "\n" + filter));
  return result;
}

bool JobFilter::MatchesParent(const v1::Job& job) const {
  if (!single_job_.empty() && job.name() != single_job_) return false;
  return project_.empty() || ParseJobName(job.name())->project == project_;
}

bool JobFilter::Matches(const v1::Job& job) const {
  if (!MatchesParent(job)) return false;
  for (const Term& term : terms_) {
    switch (term.field) {
      case Term::kState:
        if (term.value != StateName(job.state())) return false;
        break;
      case Term::kTerminal:
        if ((term.value == "true") != job.terminal()) return false;
        break;
      case Term::kName:
        if (term.value != job.name() && term.value != job.spec().name() &&
            term.value != ParseJobName(job.name())->job_id) {
          return false;
        }
        break;
      case Term::kLabel: {
        const auto it = job.spec().labels().find(term.key);
        if (it == job.spec().labels().end() || it->second != term.value) return false;
        break;
      }
    }
  }
  return true;
}

}  // namespace switchyard::coordinator
