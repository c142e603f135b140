#include "coordinator/report/job_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace switchyard::coordinator {
namespace {

const char* BadgeClass(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_SUCCEEDED:
      return "good";
    case v1::JOB_STATE_FAILED:
      return "bad";
    case v1::JOB_STATE_RUNNING:
      return "live";
    case v1::JOB_STATE_RECOVERING:
      return "warn";
    default:
      return "";
  }
}

}  // namespace

std::string JobId(const v1::Job& job) { return job.name().substr(job.name().rfind('/') + 1); }

std::string JobProject(const v1::Job& job) {
  const size_t begin = job.name().find('/') + 1;
  return job.name().substr(begin, job.name().find('/', begin) - begin);
}

std::string JobStateName(v1::JobState state) {
  const std::string name = v1::JobState_Name(state);
  return name.rfind("JOB_STATE_", 0) == 0 ? name.substr(10) : absl::StrCat("state ", state);
}

std::string PhaseWord(v1::JobPhase phase) {
  if (phase == v1::JOB_PHASE_UNSPECIFIED) return "";
  const std::string name = v1::JobPhase_Name(phase);
  return name.rfind("JOB_PHASE_", 0) == 0
             ? absl::StrReplaceAll(absl::AsciiStrToLower(name.substr(10)), {{"_", " "}})
             : absl::StrCat("phase ", phase);
}

std::string StateBadge(v1::JobState state) {
  return absl::StrCat("<span class=\"badge ", BadgeClass(state), "\">", JobStateName(state),
                      "</span>");
}

std::string HtmlTile(const std::string& name, const std::string& value, const std::string& detail) {
  return absl::StrCat("<div class=\"tile\"><span>", name, "</span><b>", value, "</b><small>",
                      detail, "</small></div>");
}

}  // namespace switchyard::coordinator
