#include "coordinator/kubernetes/node_view.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace switchyard::coordinator {
namespace {

using Stage = NodeView::Stage;

// After which a pod that should have gone long ago is given up: its machine does not answer.
constexpr absl::Duration kGoneSlack = absl::Seconds(60);
// A Job normally has its pod by then.
constexpr absl::Duration kPodPatience = absl::Seconds(30);
// In which news of a pod are there when those of its Job are.
constexpr absl::Duration kPodNews = absl::Seconds(3);
constexpr size_t kMaxMessage = 400;

absl::Time TimeAt(const Json& value, std::initializer_list<const char*> path) {
  absl::Time time;
  return absl::ParseTime(absl::RFC3339_full, TextAt(value, path), &time, nullptr)
             ? time
             : absl::InfiniteFuture();
}

std::string NameOf(const Json& object) { return TextAt(object, {"metadata", "name"}); }

// The condition of this type, null when it is not "True" (or `status`).
const Json& Condition(const Json& object, const char* type, const char* status = "True") {
  static const Json kNull;
  const Json& conditions = ListAt(object, {"status", "conditions"});
  const auto found = std::find_if(conditions.begin(), conditions.end(), [&](const Json& one) {
    return TextAt(one, {"type"}) == type && TextAt(one, {"status"}) == status;
  });
  return found == conditions.end() ? kNull : *found;
}

// ": message" with its end, where what went wrong usually is.
std::string Said(std::string message) {
  message = std::string(absl::StripAsciiWhitespace(message));
  if (message.size() > kMaxMessage)
    message = absl::StrCat("...", message.substr(message.size() - kMaxMessage));
  return message.empty() ? "" : absl::StrCat(": ", message);
}

const Json& AgentStatus(const Json& pod) {
  static const Json kNull;
  const Json& containers = ListAt(pod, {"status", "containerStatuses"});
  const auto found = std::find_if(containers.begin(), containers.end(),
                                  [](const Json& one) { return TextAt(one, {"name"}) == "agent"; });
  return found == containers.end() ? kNull : *found;
}

void Fail(NodeView& view, std::string code, std::string sentence) {
  if (!view.failure_code.empty()) return;  // the first is the cause
  view.failure_code = std::move(code);
  view.failure = std::move(sentence);
}

// Somebody took the pod away, or what carried it.
bool FailDisrupted(NodeView& view, const Json& pod) {
  const Json& disruption = Condition(pod, "DisruptionTarget");
  const std::string reason =
      disruption.is_null() ? TextAt(pod, {"status", "reason"}) : TextAt(disruption, {"reason"});
  const std::string message =
      disruption.is_null() ? TextAt(pod, {"status", "message"}) : TextAt(disruption, {"message"});
  const std::string who = absl::StrCat("pod ", NameOf(pod));
  const std::string on = view.machine.empty() ? "" : absl::StrCat(" on ", view.machine);
  if (reason == "NodeLost" || reason == "DeletionByTaintManager" || reason == "DeletionByPodGC") {
    Fail(view, "NODE_LOST",
         absl::StrCat(who, " lost its node", on, " (", reason, ")", Said(message)));
  } else if (absl::StrContains(message, "low on resource")) {
    Fail(view, "ALLOCATION_FAILED",
         absl::StrCat(who, " was evicted", on, Said(message),
                      "; ask for more in container.resources or for emptier nodes"));
  } else if (!disruption.is_null() || reason == "Evicted" || reason == "Preempting" ||
             reason == "Shutdown" || reason == "NodeShutdown" || reason == "Terminated") {
    Fail(view, "PREEMPTED",
         absl::StrCat(who, " was taken off its node", on, " (", reason, ")", Said(message)));
  } else if (reason == "DeadlineExceeded") {
    Fail(view, "ALLOCATION_TIME_LIMIT", absl::StrCat(who, " reached activeDeadlineSeconds", on));
  } else {
    return false;
  }
  return true;
}

void ReadFailed(NodeView& view, const Json& pod) {
  if (FailDisrupted(view, pod)) return;
  const std::string who = absl::StrCat("pod ", NameOf(pod));
  const std::string on = view.machine.empty() ? "" : absl::StrCat(" on ", view.machine);
  const Json& ended = At(AgentStatus(pod), {"state", "terminated"});
  if (TextAt(ended, {"reason"}) == "OOMKilled") {
    Fail(view, "OUT_OF_MEMORY",
         absl::StrCat(who, " ran out of memory", on,
                      " and was killed: raise limits.memory in container.resources"));
  } else if (ended.is_null()) {
    Fail(view, "ALLOCATION_FAILED",
         absl::StrCat(who, " failed", on, " (", TextAt(pod, {"status", "reason"}), ")",
                      Said(TextAt(pod, {"status", "message"}))));
  } else {
    Fail(view, "ALLOCATION_FAILED",
         absl::StrCat("the agent of ", who, " ended with exit code ", NumberAt(ended, {"exitCode"}),
                      on, Said(TextAt(ended, {"message"})), " (`kubectl logs ", NameOf(pod), "`)"));
  }
}

void ReadPending(NodeView& view, const Json& pod) {
  const Json& waits = At(AgentStatus(pod), {"state", "waiting"});
  const std::string reason = TextAt(waits, {"reason"});
  if (view.machine.empty()) {
    const Json& unscheduled = Condition(pod, "PodScheduled", "False");
    view.stage = Stage::kWaiting;
    view.detail = absl::StrCat("pod ", NameOf(pod), " waits for a node",
                               Said(TextAt(unscheduled, {"message"})));
    return;
  }
  view.stage = Stage::kStarting;
  if (reason.empty() || reason == "ContainerCreating" || reason == "PodInitializing") {
    view.detail = absl::StrCat("pod ", NameOf(pod), " starts on ", view.machine);
    return;
  }
  view.detail = absl::StrCat("pod ", NameOf(pod), " cannot start on ", view.machine, " (", reason,
                             ")", Said(TextAt(waits, {"message"})));
  if (reason == "InvalidImageName") Fail(view, "ALLOCATION_REFUSED", view.detail);
}

// What one pod adds to the view; its own stage.
Stage ReadPod(NodeView& view, const Json* job, const Json& pod, absl::Time now) {
  const std::string phase = TextAt(pod, {"status", "phase"});
  view.machine = TextAt(pod, {"spec", "nodeName"});
  if (phase == "Succeeded") {
    FailDisrupted(view, pod);
    return Stage::kEnded;
  }
  if (phase == "Failed") {
    ReadFailed(view, pod);
    return Stage::kEnded;
  }
  if (IsBeingDeleted(pod)) {
    const bool job_stays =
        job != nullptr && !IsBeingDeleted(*job) && EndOfJob(*job) == absl::InfiniteFuture();
    if (!FailDisrupted(view, pod) && job_stays) {
      Fail(view, "PREEMPTED",
           absl::StrCat("pod ", NameOf(pod), " is taken off ", view.machine,
                        ": by a drain, for a pod of higher priority, or by hand"));
    }
    if (now > TimeAt(pod, {"metadata", "deletionTimestamp"}) + kGoneSlack) {
      Fail(view, "NODE_LOST",
           absl::StrCat("pod ", NameOf(pod), " should have ended long ago, but ", view.machine,
                        " does not say that it has"));
      return Stage::kEnded;
    }
    view.detail = absl::StrCat("pod ", NameOf(pod), " is ending on ", view.machine);
    return Stage::kRunning;
  }
  if (phase == "Running") {
    view.detail = absl::StrCat("pod ", NameOf(pod), " runs on ", view.machine);
    return Stage::kRunning;
  }
  ReadPending(view, pod);
  return view.stage;
}

void ReadJobFailure(NodeView& view, const Json& job) {
  const Json& failed = Condition(job, "Failed");
  if (failed.is_null()) return;
  const std::string reason = TextAt(failed, {"reason"});
  const std::string sentence = absl::StrCat("Kubernetes Job ", NameOf(job), " failed (", reason,
                                            ")", Said(TextAt(failed, {"message"})));
  if (reason == "PodFailurePolicy") {
    Fail(view, "PREEMPTED", sentence);
  } else if (reason == "DeadlineExceeded") {
    Fail(view, "ALLOCATION_TIME_LIMIT", sentence);
  } else {
    Fail(view, "ALLOCATION_FAILED", sentence);
  }
}

std::string WhyNoPod(const Json& job, absl::Time now) {
  const std::string who = absl::StrCat("Kubernetes Job ", NameOf(job));
  if (At(job, {"spec", "suspend"}) == Json(true)) {
    return absl::StrCat(who, " is suspended, by a queue or by hand",
                        Said(TextAt(Condition(job, "Suspended"), {"message"})));
  }
  const absl::Time made = TimeAt(job, {"metadata", "creationTimestamp"});
  if (now < made + kPodPatience) return absl::StrCat(who, " has no pod yet");
  return absl::StrCat(who, " has no pod yet: `kubectl describe job ", NameOf(job),
                      "` says why (a quota, an admission rule)");
}

}  // namespace

bool IsBeingDeleted(const Json& object) {
  return !TextAt(object, {"metadata", "deletionTimestamp"}).empty();
}

absl::Time EndOfJob(const Json& job) {
  for (const char* type : {"Complete", "Failed"}) {
    const Json& condition = Condition(job, type);
    if (condition.is_null()) continue;
    const absl::Time end = TimeAt(condition, {"lastTransitionTime"});
    return end == absl::InfiniteFuture() ? absl::InfinitePast() : end;
  }
  return absl::InfiniteFuture();
}

NodeView ViewNode(const Json* job, const std::vector<const Json*>& pods, absl::Time now) {
  NodeView view;
  const bool over = job == nullptr || !Condition(*job, "Complete").is_null() ||
                    !Condition(*job, "Failed").is_null();
  view.deleted = job == nullptr || IsBeingDeleted(*job);
  Stage stage = Stage::kEnded;
  for (const Json* pod : pods) {
    // A pod that has not ended counts, not those before it.
    stage = std::min(stage, ReadPod(view, job, *pod, now));
  }
  // The pod says more than its Job; news of the two come on different ways.
  if (over && job != nullptr && pods.empty() && now < EndOfJob(*job) + kPodNews) {
    stage = Stage::kRunning;
  } else if (job != nullptr && stage == Stage::kEnded) {
    ReadJobFailure(view, *job);
  }
  if (pods.empty() && !over) {
    stage = Stage::kWaiting;
    view.detail = WhyNoPod(*job, now);
  }
  view.stage = stage;
  view.live = !over && !view.deleted && stage != Stage::kEnded;
  if (stage == Stage::kEnded && view.detail.empty()) view.detail = "its pod has ended";
  return view;
}

}  // namespace switchyard::coordinator
