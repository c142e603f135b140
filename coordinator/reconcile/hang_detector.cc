#include "coordinator/reconcile/hang_detector.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard::coordinator {
namespace {

using std::chrono::milliseconds;

constexpr double kStepsOfSilence = 20;  // far beyond what load, a slow disk or a straggler explain
constexpr double kSlowDisk = 50e6;      // bytes/s
constexpr milliseconds kSavingFloor{600000};
// Looks come several times a second. A longer pause is the coordinator's own, not the attempt's.
constexpr milliseconds kLongestLook{2000};

milliseconds FromSeconds(double seconds) {
  return milliseconds(static_cast<int64_t>(std::min(seconds, 1e9) * 1e3));
}

bool HearsEveryNode(const CoreContext& core, const AttemptFacts& facts) {
  return std::all_of(facts.nodes.begin(), facts.nodes.end(), [&core](const std::string& name) {
    const NodeEntry* entry = core.nodes.Find(name);
    return entry != nullptr && entry->connected() && entry->node.state() == v1::NODE_STATE_READY;
  });
}

// A rank alone behind all the others, -1 when there is none. Ranks agree once a step, so the rank
// that holds up a step is one step behind at most.
int RankBehind(const std::map<int, int64_t>& steps, int world) {
  if (world < 2 || steps.size() != static_cast<size_t>(world)) return -1;
  int64_t newest = 0;
  for (const auto& [rank, step] : steps) newest = std::max(newest, step);
  int behind = -1;
  for (const auto& [rank, step] : steps) {
    if (step == newest) continue;
    if (behind >= 0 || step != newest - 1) return -1;
    behind = rank;
  }
  return behind;
}

}  // namespace

milliseconds SilenceLimit(const v1::Plan& plan, v1::JobPhase phase, double slowest_step,
                          milliseconds floor) {
  if (phase == v1::JOB_PHASE_SAVING) {
    return std::max({floor, kSavingFloor,
                     FromSeconds(static_cast<double>(plan.checkpoint_bytes()) / kSlowDisk)});
  }
  double step = slowest_step;
  if (plan.tokens_per_second() > 0) {
    step = std::max(step, static_cast<double>(plan.global_batch_sequences()) *
                              plan.sequence_length() / plan.tokens_per_second());
  }
  return std::max(floor, FromSeconds(kStepsOfSilence * step));
}

std::optional<Failure> LookForHang(CoreContext& core, const std::string& uid,
                                   const AttemptFacts& facts) {
  Silence& silence = core.book.live(uid).silence;
  const auto now = core.clock.Steady();
  const auto since =
      silence.looked == Clock::SteadyTime() ? Clock::SteadyTime::duration(0) : now - silence.looked;
  silence.looked = now;
  const int64_t changes = static_cast<int64_t>(facts.shards.size()) + facts.finished_ok;
  if (facts.phase != silence.phase || facts.step != silence.step || changes != silence.changes) {
    silence.phase = facts.phase;
    silence.step = facts.step;
    silence.changes = changes;
    silence.time = milliseconds(0);
    return std::nullopt;
  }
  if (!HearsEveryNode(core, facts)) return std::nullopt;
  silence.time += std::min(kLongestLook, std::chrono::duration_cast<milliseconds>(since));
  const v1::Job& job = core.book.Find(uid)->job();
  const milliseconds limit =
      SilenceLimit(job.plan(), facts.phase, silence.slowest_step, core.options.silence_floor);
  if (silence.time <= limit) return std::nullopt;
  Failure failure;
  failure.code = "HANG";
  failure.step = std::max(facts.step, job.attempts().rbegin()->resumed_from_step());
  for (const auto& [rank, step] : silence.rank_steps) failure.step = std::max(failure.step, step);
  failure.message =
      absl::StrFormat("no rank said anything for %d s (limit %d s) after step %d",
                      silence.time.count() / 1000, limit.count() / 1000, failure.step);
  failure.rank = RankBehind(silence.rank_steps, facts.world);
  for (const v1::RankPlacement& placement : job.attempts().rbegin()->placements()) {
    if (placement.rank() == failure.rank) failure.node = placement.node();
  }
  if (failure.rank >= 0) {
    absl::StrAppendFormat(&failure.message, "; rank %d on node %s is behind the others",
                          failure.rank, failure.node);
  }
  return failure;
}

}  // namespace switchyard::coordinator
