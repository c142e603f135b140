#include "coordinator/kubernetes/allocator.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "coordinator/launch/cluster_config.h"

namespace switchyard::coordinator {
namespace {

using Stage = NodeView::Stage;

// For agents that were told to leave and are about to.
constexpr absl::Duration kLeaveGrace = absl::Seconds(10);

std::string NameOf(const Json& object) { return TextAt(object, {"metadata", "name"}); }
std::string UidOf(const Json& object) { return TextAt(object, {"metadata", "uid"}); }

// Refused for good, not by rights or quotas that somebody may change.
bool IsRefusal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
         (absl::IsPermissionDenied(status) &&
          absl::StrContains(status.message(), "denied the request"));
}

std::string Where(const std::vector<NodeView>& views) {
  std::set<std::string> machines;
  for (const NodeView& view : views) {
    if (!view.machine.empty()) machines.insert(view.machine);
  }
  return absl::StrJoin(machines, ", ");
}

}  // namespace

KubernetesAllocator::KubernetesAllocator(launch::v1::KubernetesConfig config,
                                         KubernetesClient::Options client)
    : config_(std::move(config)),
      options_(std::move(client)),
      jobs_{"batch", "jobs", options_.access.namespace_},
      pods_{"", "pods", options_.access.namespace_},
      services_{"", "services", options_.access.namespace_},
      client_(options_),
      thread_([this] { Run(); }) {}

KubernetesAllocator::~KubernetesAllocator() {
  board_.Stop();
  client_.Stop();
  thread_.join();
}

std::vector<PlannerSlot> KubernetesAllocator::Offer() const {
  return SlotsOf(config_.nodes(), "kubernetes");
}

void KubernetesAllocator::Want(const std::string& store_id, std::vector<Allocation> allocations) {
  board_.Want(store_id, std::move(allocations));
}

AllocationStatus KubernetesAllocator::Look(const AttemptKey& attempt) const {
  return board_.Look(attempt);
}

void KubernetesAllocator::Run() {
  Wish wish;
  while (board_.Next(absl::Seconds(config_.poll_seconds()), &wish)) {
    if (!wish.told) continue;
    if (job_cache_ == nullptr) Begin(wish.store_id);
    if (IsReachable()) {
      Turn(wish);
    } else {
      ShowTrouble(wish);
    }
  }
}

void KubernetesAllocator::ShowTrouble(const Wish& wish) {
  WishBoard::Seen seen;
  for (const Allocation& allocation : wish.allocations) {
    AllocationStatus& status = seen[allocation.attempt] = board_.Look(allocation.attempt);
    if (status.state == AllocationState::kUnknown) status.detail = problem_;
  }
  board_.Show(std::move(seen));
}

void KubernetesAllocator::Begin(const std::string& store_id) {
  store_id_ = store_id;
  const auto changed = [this] { board_.Wake(); };
  job_cache_ = std::make_unique<ObjectCache>(options_, jobs_, SelectorOf(store_id), changed);
  pod_cache_ = std::make_unique<ObjectCache>(options_, pods_, SelectorOf(store_id), changed);
  TellMissingRights();
}

void KubernetesAllocator::TellMissingRights() {
  std::vector<std::pair<std::string, Resource>> needed;
  for (const char* verb : {"get", "list", "watch", "create", "delete"})
    needed.emplace_back(verb, jobs_);
  for (const char* verb : {"list", "watch"}) needed.emplace_back(verb, pods_);
  for (const char* verb : {"get", "create"}) needed.emplace_back(verb, services_);
  const auto missing = client_.MissingRights(needed);
  if (!missing.ok()) {
    log::Warning("kubernetes.rights_unknown", {{"error", std::string(missing.status().message())}});
  } else if (!missing->empty()) {
    log::Error("kubernetes.rights_missing", {{"rights", *missing},
                                             {"namespace", jobs_.namespace_},
                                             {"fix", "add them to the coordinator's Role"}});
  }
}

bool KubernetesAllocator::IsReachable() {
  const std::optional<absl::Status> jobs = job_cache_->status(), pods = pod_cache_->status();
  if (!jobs || !pods) return false;
  const absl::Status& status = jobs->ok() ? *pods : *jobs;
  std::string problem(status.message());
  // Between two tries the words may change; one line for each turn of events.
  if (problem.empty() != problem_.empty()) {
    log::Write(problem.empty() ? log::Level::kInfo : log::Level::kWarning,
               problem.empty() ? "kubernetes.reachable" : "kubernetes.unreachable",
               {{"server", options_.access.url}, {"error", problem}});
  }
  problem_ = std::move(problem);
  return status.ok();
}

void KubernetesAllocator::Turn(const Wish& wish) {
  std::map<AttemptKey, FoundNodes> found;
  // Pods after Jobs: a pod is never older than its Job.
  for (auto& [name, job] : job_cache_->Get()) {
    const auto place = PlaceOf(store_id_, *job);
    // Labels that anybody can give, the name only one.
    if (place && JobNameOf(store_id_, *place) == name)
      found[place->attempt][place->index].job = job;
  }
  for (auto& [name, pod] : pod_cache_->Get()) {
    if (const auto place = PlaceOf(store_id_, *pod))
      found[place->attempt][place->index].pods.push_back(pod);
  }
  WishBoard::Seen seen;
  for (const Allocation& allocation : wish.allocations) {
    seen[allocation.attempt] = Drive(allocation, std::move(found[allocation.attempt]));
    found.erase(allocation.attempt);
  }
  for (const auto& [attempt, memory] : memory_) {
    if (seen.count(attempt) == 0) over_since_.emplace(attempt, absl::Now());
  }
  std::erase_if(memory_, [&](const auto& entry) { return seen.count(entry.first) == 0; });
  board_.Show(std::move(seen));
  EndWhatIsOver(found);
}

AllocationStatus KubernetesAllocator::Drive(const Allocation& allocation, FoundNodes found) {
  Memory& memory = memory_[allocation.attempt];
  memory.nodes.resize(static_cast<size_t>(allocation.nodes));
  std::vector<NodeView> views;
  absl::Status trouble;
  for (int i = 0; i < allocation.nodes; ++i) {
    Known& known = memory.nodes[static_cast<size_t>(i)];
    Found& node = found[i];
    if (trouble.ok()) trouble = Settle(allocation, i, known, node, memory);
    std::vector<const Json*> pods;
    for (const auto& pod : node.pods) pods.push_back(pod.get());
    NodeView& view = views.emplace_back(ViewNode(node.job.get(), pods, absl::Now()));
    // Not made yet is not ended.
    if (known.uid.empty() && allocation.keep && memory.failure_code.empty())
      view.stage = Stage::kWaiting;
  }
  NoteFailures(allocation, views, memory);
  const bool failed = !memory.failure_code.empty();
  if (failed || !allocation.keep) {
    EndAll(found, views, memory,
           failed ? absl::StrCat("another pod of its attempt has ended: ", memory.failure)
                  : "its attempt is being ended");
  }
  if (std::all_of(views.begin(), views.end(),
                  [](const NodeView& view) { return view.stage == Stage::kEnded; })) {
    if (failed) return {AllocationState::kEnded, memory.failure_code, memory.failure};
    if (!allocation.keep) return {AllocationState::kEnded, "", "its pods have ended as asked"};
    return {AllocationState::kEnded, "ALLOCATION_FAILED",
            absl::StrCat("the pods of ", ServiceNameOf(store_id_, allocation.attempt),
                         " ended though their agents were not told to leave")};
  }
  if (failed)
    return {AllocationState::kRunning, "", absl::StrCat("pods are ending: ", memory.failure)};
  if (!trouble.ok()) return {AllocationState::kUnknown, "", std::string(trouble.message())};
  const auto late = std::find_if(views.begin(), views.end(),
                                 [](const NodeView& view) { return view.stage < Stage::kRunning; });
  if (late != views.end()) return {AllocationState::kPending, "", late->detail};
  return {AllocationState::kRunning, "",
          absl::StrCat("Kubernetes Jobs ", ServiceNameOf(store_id_, allocation.attempt),
                       "-* run on ", Where(views))};
}

absl::Status KubernetesAllocator::Settle(const Allocation& allocation, int index, Known& known,
                                         Found& found, Memory& memory) {
  const NodePlace place{allocation.attempt, index};
  if (found.job == nullptr && known.gone) return absl::OkStatus();
  if (found.job == nullptr && !known.uid.empty()) {
    // Gone, or the cache has not heard of it yet.
    absl::StatusOr<Json> job = client_.Get(jobs_, JobNameOf(store_id_, place));
    if (absl::IsNotFound(job.status())) {
      known.gone = true;
    } else if (!job.ok()) {
      return job.status();
    } else {
      found.job = std::make_shared<const Json>(*std::move(job));
    }
  } else if (found.job == nullptr && allocation.keep && memory.failure_code.empty()) {
    const absl::Status made = Make(allocation, index, known, found);
    if (!made.ok() && !absl::IsCancelled(made)) {
      log::Warning("kubernetes.not_created",
                   {{"name", JobNameOf(store_id_, place)}, {"error", std::string(made.message())}});
    }
    if (IsRefusal(made)) {
      // The next attempt may try again, not this one.
      memory.failure_code = "ALLOCATION_REFUSED";
      memory.failure = std::string(made.message());
    }
    SWITCHYARD_RETURN_IF_ERROR(made);
  }
  if (found.job == nullptr) return absl::OkStatus();
  if (known.uid.empty()) {
    known.uid = UidOf(*found.job);
    log::Info("kubernetes.adopted", {{"name", NameOf(*found.job)}, {"uid", known.uid}});
  }
  // The same name again: somebody deleted ours and made another.
  if (known.uid != UidOf(*found.job)) known.gone = true;
  known.was_kept = known.was_kept || !IsBeingDeleted(*found.job);
  if (index == 0 && allocation.keep && !memory.has_service && !IsBeingDeleted(*found.job)) {
    SWITCHYARD_RETURN_IF_ERROR(MakeService(allocation, *found.job));
    memory.has_service = true;
  }
  return absl::OkStatus();
}

absl::Status KubernetesAllocator::Make(const Allocation& allocation, int index, Known& known,
                                       Found& found) {
  SWITCHYARD_ASSIGN_OR_RETURN(const ServerVersion version, client_.Version());
  const NodePlace place{allocation.attempt, index};
  const std::string name = JobNameOf(store_id_, place);
  absl::StatusOr<Json> job =
      client_.Create(jobs_, JobObject(config_, version, store_id_, allocation, index));
  if (absl::IsAlreadyExists(job.status())) {
    job = client_.Get(jobs_, name);
    SWITCHYARD_RETURN_IF_ERROR(job.status());
    SWITCHYARD_RETURN_IF_ERROR(CheckOwner(store_id_, place, *job));
  } else {
    SWITCHYARD_RETURN_IF_ERROR(job.status());
    known.uid = UidOf(*job);
    log::Info("kubernetes.created",
              {{"name", name}, {"uid", known.uid}, {"slots", allocation.slots_per_node}});
  }
  found.job = std::make_shared<const Json>(*std::move(job));
  return absl::OkStatus();
}

absl::Status KubernetesAllocator::MakeService(const Allocation& allocation, const Json& first_job) {
  const std::string name = ServiceNameOf(store_id_, allocation.attempt);
  absl::StatusOr<Json> service = client_.Get(services_, name);
  if (absl::IsNotFound(service.status())) {
    service = client_.Create(services_, ServiceObject(store_id_, allocation.attempt, first_job));
    if (service.ok()) log::Info("kubernetes.created", {{"name", name}, {"kind", "Service"}});
    if (absl::IsAlreadyExists(service.status())) return absl::OkStatus();
  }
  return service.status();
}

bool KubernetesAllocator::IsJobDeleted(const Allocation& allocation, size_t index) {
  // Pods may be heard of before the Job that they go with.
  const absl::StatusOr<Json> job =
      client_.Get(jobs_, JobNameOf(store_id_, {allocation.attempt, static_cast<int>(index)}));
  return job.ok() ? IsBeingDeleted(*job) : absl::IsNotFound(job.status());
}

void KubernetesAllocator::NoteFailures(const Allocation& allocation,
                                       const std::vector<NodeView>& views, Memory& memory) {
  const auto fail = [&](std::string code, std::string sentence) {
    if (!memory.failure_code.empty()) return;
    log::Warning(
        "kubernetes.failed",
        {{"attempt", AllocationName(allocation.attempt)}, {"code", code}, {"error", sentence}});
    memory.failure_code = std::move(code);
    memory.failure = std::move(sentence);
  };
  for (size_t i = 0; i < views.size(); ++i) {
    Known& known = memory.nodes[i];
    const NodeView& view = views[i];
    // What ends because we end it is no failure.
    if (known.deleted_by_us || view.failure_code.empty()) continue;
    if (view.failure_code == "PREEMPTED" && !view.deleted && IsJobDeleted(allocation, i)) {
      known.gone = true;
    } else {
      fail(view.failure_code, view.failure);
    }
  }
  if (!allocation.keep) return;
  for (size_t i = 0; i < views.size(); ++i) {
    const Known& known = memory.nodes[i];
    if (known.uid.empty() || known.deleted_by_us || (!known.gone && !views[i].deleted)) continue;
    const std::string name = JobNameOf(store_id_, {allocation.attempt, static_cast<int>(i)});
    if (known.was_kept) {
      fail("ALLOCATION_CANCELLED",
           absl::StrCat("Kubernetes Job ", name,
                        " was deleted by somebody; `switchyard retry` goes on from the newest "
                        "checkpoint"));
    } else {
      fail("ALLOCATION_FAILED", absl::StrCat("Kubernetes Job ", name,
                                             " was being deleted when the coordinator started"));
    }
  }
  const auto running = std::count_if(views.begin(), views.end(), [](const NodeView& view) {
    return view.stage >= Stage::kRunning;
  });
  const bool all = running == allocation.nodes;
  const bool some = std::any_of(views.begin(), views.end(),
                                [](const NodeView& view) { return view.stage != Stage::kWaiting; });
  memory.ran = memory.ran || all;
  if (memory.ran || !some) {
    memory.held_since = absl::InfiniteFuture();
    return;
  }
  memory.held_since = std::min(memory.held_since, absl::Now());
  if (absl::Now() - memory.held_since < absl::Seconds(config_.start_seconds())) return;
  const auto late = std::find_if(views.begin(), views.end(),
                                 [](const NodeView& view) { return view.stage < Stage::kRunning; });
  fail("ALLOCATION_FAILED",
       absl::StrCat(running, " of ", allocation.nodes, " pods ran after start_seconds, ",
                    config_.start_seconds(), ": ", late->detail));
}

void KubernetesAllocator::EndAll(const FoundNodes& found, const std::vector<NodeView>& views,
                                 Memory& memory, const std::string& why) {
  for (size_t i = 0; i < views.size(); ++i) {
    const auto& job = found.at(static_cast<int>(i)).job;
    if (job == nullptr || !views[i].live || memory.nodes[i].deleted_by_us) continue;
    if (Delete(*job, why)) memory.nodes[i].deleted_by_us = true;
  }
}

void KubernetesAllocator::EndWhatIsOver(const std::map<AttemptKey, FoundNodes>& left) {
  const absl::Time now = absl::Now();
  for (const auto& [attempt, nodes] : left) {
    const auto over = over_since_.find(attempt);
    const absl::Time since = over == over_since_.end() ? absl::InfinitePast() : over->second;
    for (const auto& [index, node] : nodes) {
      if (node.job == nullptr || IsBeingDeleted(*node.job)) continue;
      const absl::Time end = EndOfJob(*node.job);
      if (end == absl::InfiniteFuture()) {
        if (now - since > kLeaveGrace) Delete(*node.job, "its attempt is over");
      } else if (now - end > absl::Seconds(config_.keep_finished_seconds())) {
        Delete(*node.job, "it ended long ago");
      }
    }
  }
  std::erase_if(over_since_, [&](const auto& entry) { return left.count(entry.first) == 0; });
}

bool KubernetesAllocator::Delete(const Json& job, const std::string& why) {
  const absl::Status status = client_.Delete(jobs_, NameOf(job), UidOf(job));
  // Gone already, or another one by now: both are what was wanted.
  const bool done = status.ok() || absl::IsNotFound(status) || absl::IsAborted(status);
  log::Write(done ? log::Level::kInfo : log::Level::kWarning, "kubernetes.deleted",
             {{"name", NameOf(job)}, {"why", why}, {"error", std::string(status.message())}});
  return done;
}

}  // namespace switchyard::coordinator
