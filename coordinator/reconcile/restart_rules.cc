#include "coordinator/reconcile/restart_rules.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard::coordinator {
namespace {

enum class Action {
  kStop,            // would happen again
  kStopIfRepeated,  // one more try; the same failure without a step of progress between stops
  kStopIfEarly,     // as above, and at once when the first step never came through
  kRestart,
  kFallBack,  // to an older checkpoint
};

struct Rule {
  const char* code;
  v1::FailureDomain domain;
  Action action;
  bool counted;         // against restart.max_attempts
  bool needs_progress;  // three in a row without a new checkpoint stop the job
  int cause;            // lower wins when several ranks fail; 2: follows from another failure
  bool avoid_node;      // another node may do better
};

constexpr auto kUser = v1::FAILURE_DOMAIN_USER;
constexpr auto kInfrastructure = v1::FAILURE_DOMAIN_INFRASTRUCTURE;
constexpr auto kSystem = v1::FAILURE_DOMAIN_SYSTEM;

constexpr Rule kRules[] = {
    {"CONFIG", kUser, Action::kStop, true, true, 0, false},
    {"DATA", kUser, Action::kStop, true, true, 0, false},
    {"MODEL", kUser, Action::kStop, true, true, 0, false},
    {"OUTPUT", kUser, Action::kStop, true, true, 0, false},
    {"PATHS", kUser, Action::kStop, true, true, 0, false},
    {"DISK_FULL", kUser, Action::kStop, true, true, 0, false},
    {"DOES_NOT_FIT", kUser, Action::kStop, true, true, 0, false},
    {"NON_FINITE", kUser, Action::kStop, true, true, 0, false},
    {"OUT_OF_MEMORY", kUser, Action::kStopIfEarly, true, true, 0, true},
    {"CHECKPOINT_CORRUPT", kInfrastructure, Action::kFallBack, false, false, 0, false},
    {"KILLED", kInfrastructure, Action::kRestart, true, true, 0, true},
    {"CRASHED", kSystem, Action::kStopIfRepeated, true, true, 0, true},
    {"INTERNAL", kSystem, Action::kStopIfRepeated, true, true, 0, true},
    {"SPAWN_FAILED", kInfrastructure, Action::kStopIfRepeated, true, true, 0, true},
    {"DATA_PREPARATION", kInfrastructure, Action::kRestart, true, true, 0, true},
    {"PUBLISH_FAILED", kInfrastructure, Action::kRestart, true, true, 0, true},
    {"DEVICE", kInfrastructure, Action::kRestart, false, true, 0, true},
    {"HANG", kInfrastructure, Action::kRestart, true, true, 1, true},
    {"LAUNCH_TIMEOUT", kInfrastructure, Action::kRestart, false, true, 1, true},
    {"NODE_LOST", kInfrastructure, Action::kRestart, false, false, 1, true},
    {"AGENT_RESTARTED", kInfrastructure, Action::kRestart, false, false, 1, false},
    {"AGENT_STOPPED", kInfrastructure, Action::kRestart, false, false, 1, false},
    // Of a cluster that lends nodes for an attempt (launch/node_allocator.h).
    {"ALLOCATION_REFUSED", kUser, Action::kStopIfRepeated, true, true, 0, false},
    {"ALLOCATION_CANCELLED", kUser, Action::kStop, true, true, 0, false},
    {"ALLOCATION_FAILED", kInfrastructure, Action::kRestart, true, true, 0, false},
    {"ALLOCATION_TIME_LIMIT", kInfrastructure, Action::kRestart, false, true, 0, false},
    {"PREEMPTED", kInfrastructure, Action::kRestart, false, false, 0, false},
    {"AGENTS_MISSING", kInfrastructure, Action::kRestart, true, true, 1, false},
    {"PEER_LOST", kInfrastructure, Action::kRestart, false, true, 2, false},
    {"STOPPED", kSystem, Action::kRestart, true, true, 2, false},
};
// A code that this version does not know.
constexpr Rule kUnknown = {"", kSystem, Action::kStopIfRepeated, true, true, 0, true};

constexpr int kAttemptsWithoutProgress = 3;
constexpr int64_t kFirstBackoffMs = 1000;
constexpr int64_t kLongestBackoffMs = 300000;
constexpr double kHealthySeconds = 30 * 60;

const Rule& RuleOf(const std::string& code) {
  for (const Rule& rule : kRules) {
    if (code == rule.code) return rule;
  }
  return kUnknown;
}

std::string Where(const Failure& failure) {
  if (failure.node.empty()) return "";
  // The sentence may have said it.
  if (failure.rank < 0 || failure.code == "HANG") {
    const std::string node = absl::StrCat("node ", failure.node);
    return absl::StrContains(failure.message, node) ? "" : absl::StrCat(" (", node, ")");
  }
  return absl::StrFormat(" (rank %d on %s, exit code %d, after step %d)", failure.rank,
                         failure.node, failure.exit_code, failure.step);
}

}  // namespace

const Failure& RootFailure(const std::vector<Failure>& failures) {
  return *std::min_element(failures.begin(), failures.end(),
                           [](const Failure& a, const Failure& b) {
                             const auto key = [](const Failure& f) {
                               return std::tuple(RuleOf(f.code).cause, !f.first_on_node,
                                                 f.time == 0 ? 1e300 : f.time, f.rank);
                             };
                             return key(a) < key(b);
                           });
}

RestartDecision DecideRestart(const Failure& failure, const AttemptHistory& history,
                              const store::v1::RestartLedger& ledger) {
  const Rule& rule = RuleOf(failure.code);
  RestartDecision decision;
  store::v1::RestartLedger& next = decision.ledger;
  next = ledger;
  const bool healthy = history.healthy_seconds >= kHealthySeconds;
  const bool progress = history.checkpoint_step_after > history.checkpoint_step_before;
  if (healthy) next.set_consecutive(0);
  next.set_consecutive(next.consecutive() + 1);
  if (rule.counted) {
    next.set_counted(next.counted() + 1);
  } else {
    next.set_uncounted(next.uncounted() + 1);
  }
  if (progress) next.set_without_progress(0);
  if (rule.needs_progress && !progress) next.set_without_progress(next.without_progress() + 1);
  const bool repeated = ledger.last_code() == failure.code &&
                        ledger.last_message() == failure.message &&
                        failure.step <= ledger.last_step();
  next.set_last_code(failure.code);
  next.set_last_message(failure.message);
  next.set_last_step(failure.step);
  const int doublings = std::min(next.consecutive() - 1, 20);
  next.set_backoff_ms(std::min(kLongestBackoffMs, kFirstBackoffMs << doublings));

  std::string stop;  // why not again; empty: again
  switch (rule.action) {
    case Action::kStop:
      stop = "would happen again";
      break;
    case Action::kStopIfEarly:
      if (failure.step == 0) stop = "no step came through, it would happen again";
      [[fallthrough]];
    case Action::kStopIfRepeated:
      if (repeated) stop = "it happened twice without a step of progress between";
      break;
    case Action::kFallBack:
      if (history.resumed_from_checkpoint) {
        decision.mark_checkpoint_corrupt = true;
        next.set_backoff_ms(0);
      } else {
        stop = "the attempt resumed from no checkpoint";
      }
      break;
    case Action::kRestart:
      break;
  }
  if (stop.empty() && rule.counted && next.counted() >= history.max_attempts) {
    stop =
        absl::StrFormat("all %d attempts of restart.max_attempts are used", history.max_attempts);
  }
  if (stop.empty() && next.without_progress() >= kAttemptsWithoutProgress) {
    stop = absl::StrFormat("%d attempts in a row saved no new checkpoint", next.without_progress());
  }
  decision.restart = stop.empty();
  decision.avoid_node = decision.restart && rule.avoid_node && !failure.node.empty();
  decision.reason.set_code(failure.code);
  decision.reason.set_domain(rule.domain);
  for (const std::string& line : failure.evidence) decision.reason.add_evidence(line);
  const std::string what = absl::StrCat(failure.message, Where(failure));
  decision.reason.set_message(decision.restart
                                  ? absl::StrFormat("%s; next attempt in %g s", what,
                                                    static_cast<double>(next.backoff_ms()) / 1000)
                                  : absl::StrFormat("%s; not restarted: %s", what, stop));
  return decision;
}

}  // namespace switchyard::coordinator
