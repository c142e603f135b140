#include "coordinator/launch/slurm_allocator.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/log.h"
#include "coordinator/launch/cluster_config.h"

namespace switchyard::coordinator {
namespace {

int64_t NumberOf(const SlurmJob& job) {
  int64_t number = 0;
  return absl::SimpleAtoi(job.id, &number) ? number : 0;
}

AllocationStatus Ended(const char* code, std::string detail) {
  return {AllocationState::kEnded, code, std::move(detail)};
}

void Cancel(const SlurmJob& job, const char* why) {
  const absl::Status status = CancelSlurmJob(job.id);
  log::Write(
      status.ok() ? log::Level::kInfo : log::Level::kWarning, "slurm.cancelled",
      {{"id", job.id}, {"name", job.name}, {"why", why}, {"error", std::string(status.message())}});
}

}  // namespace

SlurmAllocator::SlurmAllocator(launch::v1::SlurmConfig config)
    : config_(std::move(config)), thread_([this] { Run(); }) {}

SlurmAllocator::~SlurmAllocator() {
  board_.Stop();
  thread_.join();
}

std::vector<PlannerSlot> SlurmAllocator::Offer() const { return SlotsOf(config_.nodes(), "slurm"); }

void SlurmAllocator::Want(const std::string& store_id, std::vector<Allocation> allocations) {
  board_.Want(store_id, std::move(allocations));
}

AllocationStatus SlurmAllocator::Look(const AttemptKey& attempt) const {
  return board_.Look(attempt);
}

void SlurmAllocator::Run() {
  Wish wish;
  while (board_.Next(absl::Seconds(config_.poll_seconds()), &wish)) {
    if (wish.told) Turn(wish);
  }
}

void SlurmAllocator::Turn(const Wish& wish) {
  const absl::StatusOr<std::vector<SlurmJob>> jobs = ListSlurmJobs();
  if (jobs.ok() != reachable_) {
    reachable_ = jobs.ok();
    log::Write(reachable_ ? log::Level::kInfo : log::Level::kWarning,
               reachable_ ? "slurm.reachable" : "slurm.unreachable",
               {{"error", std::string(jobs.status().message())}});
  }
  if (!jobs.ok()) return;  // nothing is known, so nothing is done; agents that run go on
  std::map<AttemptKey, std::vector<const SlurmJob*>> by_attempt;
  for (const SlurmJob& job : *jobs) {
    AttemptKey attempt = AttemptOfSlurmJob(wish.store_id, job.name);
    if (!attempt.first.empty()) by_attempt[std::move(attempt)].push_back(&job);
  }
  WishBoard::Seen seen;
  for (const Allocation& allocation : wish.allocations) {
    std::vector<const SlurmJob*> found;
    if (const auto it = by_attempt.find(allocation.attempt); it != by_attempt.end()) {
      found = std::move(it->second);
      by_attempt.erase(it);
    }
    if (found.empty()) {
      seen[allocation.attempt] = Missing(wish, allocation);
      continue;
    }
    CancelDoubles(found);
    const SlurmJob& job = *found.front();
    if (ids_.emplace(allocation.attempt, job.id).second) {
      log::Info("slurm.adopted", {{"id", job.id}, {"name", job.name}, {"state", job.state}});
    }
    AllocationStatus& status = seen[allocation.attempt] = StatusOfSlurmJob(job);
    if (status.state == AllocationState::kEnded) {
      if (cancelled_.count(allocation.attempt) > 0) status.code.clear();
    } else if (!allocation.keep && job.state != "COMPLETING") {
      cancelled_.insert(allocation.attempt);
      Cancel(job, "its attempt is being ended");
    }
  }
  for (const auto& [attempt, left] : by_attempt) {
    for (const SlurmJob* job : left) {
      if (StatusOfSlurmJob(*job).state == AllocationState::kEnded) continue;
      if (job->state == "COMPLETING") continue;
      // Its agents were told to leave and are about to; the next look finds those that did not.
      if (ids_.count(attempt) > 0) continue;
      Cancel(*job, "its attempt is over");
    }
  }
  std::erase_if(ids_, [&](const auto& id) { return seen.count(id.first) == 0; });
  std::erase_if(cancelled_, [&](const auto& attempt) { return seen.count(attempt) == 0; });
  board_.Show(std::move(seen));
}

void SlurmAllocator::CancelDoubles(std::vector<const SlurmJob*>& jobs) {
  std::sort(jobs.begin(), jobs.end(), [](const SlurmJob* a, const SlurmJob* b) {
    const bool a_ended = StatusOfSlurmJob(*a).state == AllocationState::kEnded;
    const bool b_ended = StatusOfSlurmJob(*b).state == AllocationState::kEnded;
    return std::pair(a_ended, NumberOf(*a)) < std::pair(b_ended, NumberOf(*b));
  });
  for (size_t i = 1; i < jobs.size(); ++i) {
    if (StatusOfSlurmJob(*jobs[i]).state != AllocationState::kEnded) {
      Cancel(*jobs[i], "an answer of sbatch was lost and it was submitted twice");
    }
  }
}

AllocationStatus SlurmAllocator::Missing(const Wish& wish, const Allocation& allocation) {
  const std::string name = SlurmJobName(wish.store_id, allocation.attempt);
  const absl::StatusOr<std::vector<SlurmJob>> accounts = FindSlurmAccounts(name);
  if (!accounts.ok()) return Look(allocation.attempt);
  for (auto job = accounts->rbegin(); job != accounts->rend(); ++job) {
    AllocationStatus status = StatusOfSlurmJob(*job);
    if (status.state == AllocationState::kEnded) return status;
  }
  if (const auto it = ids_.find(allocation.attempt); it != ids_.end()) {
    return Ended("ALLOCATION_FAILED", absl::StrCat("Slurm knows job ", it->second, " no more"));
  }
  if (!allocation.keep) return Ended("", "it was never submitted");
  // Refused before: the next attempt may try again, not this one.
  const AllocationStatus before = Look(allocation.attempt);
  return before.state == AllocationState::kEnded ? before : Submit(name, allocation);
}

AllocationStatus SlurmAllocator::Submit(const std::string& name, const Allocation& allocation) {
  const absl::StatusOr<std::string> id = SubmitSlurmJob(config_, name, allocation);
  if (id.ok()) {
    log::Info("slurm.submitted", {{"id", *id}, {"name", name}, {"nodes", allocation.nodes}});
    ids_[allocation.attempt] = *id;
    return {AllocationState::kPending, "", absl::StrCat("Slurm job ", *id, " is submitted")};
  }
  log::Warning("slurm.not_submitted",
               {{"name", name}, {"error", std::string(id.status().message())}});
  if (absl::IsInvalidArgument(id.status())) {
    return Ended("ALLOCATION_REFUSED", std::string(id.status().message()));
  }
  // Accepted or not, nobody knows: the next look at the queue tells.
  return {AllocationState::kUnknown, "", std::string(id.status().message())};
}

}  // namespace switchyard::coordinator
