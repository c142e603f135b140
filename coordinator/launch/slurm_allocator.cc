#include "coordinator/launch/slurm_allocator.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/log.h"

namespace switchyard::coordinator {
namespace {

bool SameWish(const std::vector<Allocation>& a, const std::vector<Allocation>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Allocation& x, const Allocation& y) {
                      return x.attempt == y.attempt && x.keep == y.keep;
                    });
}

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
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

std::vector<PlannerSlot> SlurmAllocator::Offer() const {
  const launch::v1::NodeShape& shape = config_.nodes();
  std::vector<PlannerSlot> slots;
  for (int node = 0; node < shape.count(); ++node) {
    for (int i = 0; i < shape.slots(); ++i) {
      PlannerSlot& slot = slots.emplace_back();
      slot.node = absl::StrCat(node);
      slot.index = i;
      slot.device = shape.device();
      slot.product = shape.product();
      slot.memory_bytes = static_cast<int64_t>(shape.slot_memory_gib() * (1 << 30));
      slot.memory_domain = shape.one_machine() ? "slurm" : absl::StrCat("slurm-", node);
      slot.cpu_cores = shape.cpu_cores();
      slot.node_slots = shape.slots();
    }
  }
  return slots;
}

void SlurmAllocator::Want(const std::string& store_id, std::vector<Allocation> allocations) {
  absl::MutexLock lock(&mutex_);
  changed_ = changed_ || !wish_.told || !SameWish(wish_.allocations, allocations);
  wish_ = {store_id, std::move(allocations), true};
}

AllocationStatus SlurmAllocator::Look(const AttemptKey& attempt) const {
  absl::MutexLock lock(&mutex_);
  const auto it = seen_.find(attempt);
  return it == seen_.end() ? AllocationStatus() : it->second;
}

void SlurmAllocator::Run() {
  while (true) {
    Wish wish;
    {
      absl::MutexLock lock(&mutex_);
      const auto due = [this]()
                           ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || changed_; };
      mutex_.AwaitWithTimeout(absl::Condition(&due), absl::Seconds(config_.poll_seconds()));
      if (stopping_) return;
      changed_ = false;
      wish = wish_;
    }
    // Before the store has spoken nothing is known to be over.
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
  std::map<AttemptKey, AllocationStatus> seen;
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
  absl::MutexLock lock(&mutex_);
  seen_ = std::move(seen);
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
