#include "tests/coordinator/simulation/sim_world.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/job/job_state.h"
#include "coordinator/service/job_commands.h"

namespace switchyard::coordinator::simulation {

using agent::v1::ConnectRequest;
using agent::v1::ConnectResponse;
using std::chrono::milliseconds;

constexpr milliseconds kTick{500};

// Sees every commit and checks what must hold between them.
class SimWorld::Witness final : public CoreListener {
 public:
  explicit Witness(SimWorld& world) : world_(world) {}
  void OnLoaded(const StoreSnapshot&, const std::vector<v1::Job>&) override {}
  void OnProgress(const v1::Job&) override {}
  void OnCommitted(const Committed& committed) override {
    for (const ChangeRecord& change : committed.changes) {
      if (!change.job) continue;
      const v1::Job& job = *change.job;
      v1::Job& before = last_[job.uid()];
      if (before.terminal() && before.state() != job.state()) {
        world_.Violation(
            absl::StrCat(job.name(), " left the terminal state ", StateName(before.state())));
      }
      if (job.epoch() < before.epoch())
        world_.Violation(absl::StrCat(job.name(), ": the epoch went back"));
      if (before.has_create_time() && before.state() != job.state() &&
          !IsLegalTransition(before.state(), job.state())) {
        // Several moves may share a commit only when no one looked between; the core never does
        // that.
        world_.Violation(absl::StrCat(job.name(), ": ", StateName(before.state()), " to ",
                                      StateName(job.state())));
      }
      before = job;
    }
    for (const auto& record : committed.checkpoints) {
      const auto key = std::pair(record.job_uid(), record.checkpoint().name());
      if (record.checkpoint().state() == v1::CHECKPOINT_STATE_COMMITTED &&
          record.publish_failures() == 0 &&
          record.checkpoint().epoch() != last_[record.job_uid()].epoch()) {
        world_.Violation(
            absl::StrCat(key.second, " was committed by epoch ", record.checkpoint().epoch()));
      }
    }
  }

 private:
  SimWorld& world_;
  std::map<std::string, v1::Job> last_;
};

absl::StatusOr<v1::Plan> SimPlanner::Plan(const v1::JobSpec& spec, const std::vector<PlannerSlot>&,
                                          std::optional<int64_t>) {
  v1::Plan plan;
  plan.set_feasible(true);
  plan.set_ranks(spec.mesh().ranks());
  plan.set_expert_parallel(1);
  plan.set_device("cpu");
  plan.set_sequence_length(16);
  plan.set_total_steps(spec.training().steps());
  return plan;
}

std::string SimPlanner::TrainerConfig(const TrainerConfigInput& input) {
  return absl::StrFormat("%d %d %d %s %s", input.plan.ranks(), input.plan.total_steps(),
                         input.spec.checkpoint().interval_steps(), input.spec.checkpoint().output(),
                         input.resume_from.empty() ? "-" : input.resume_from);
}

SimWorld::SimWorld(uint64_t seed, int num_agents) : random_(seed) {
  options_.launch_timeout = milliseconds(120000);
  options_.silence_floor = milliseconds(60000);
  for (int i = 0; i < num_agents; ++i) {
    SimAgent& agent = agents_[absl::StrCat("node", i)];
    agent.node = absl::StrCat("node", i);
  }
  StartCoordinator();
}

SimWorld::~SimWorld() = default;

void SimWorld::After(milliseconds delay, std::function<void()> run) {
  events_.push({clock_.now + delay, ++order_, std::move(run)});
}

void SimWorld::Violation(const std::string& text) {
  violations_.push_back(absl::StrFormat("at %d ms: %s", clock_.now.count(), text));
}

void SimWorld::StartCoordinator() {
  published_ = std::make_unique<PublishedState>([] {});
  if (witness_ == nullptr) witness_ = std::make_unique<Witness>(*this);
  core_ = std::make_unique<Core>(options_, clock_, store_, planner_, *this,
                                 [this] { return absl::StrFormat("u%06d", next_id_++); });
  core_->AddListener(published_.get());
  core_->AddListener(witness_.get());
  core_->AddObserver(published_.get());
  if (!core_->Start().ok()) Violation("the coordinator did not start");
  const auto index = published_->IndexOf(watch_revision_);
  if (!index) {
    Violation("a resume token was refused");
  } else {
    watch_index_ = *index;
  }
}

void SimWorld::StopCoordinator() {
  core_.reset();
  for (auto& [id, session] : sessions_) session.to_core = false;
  for (auto& [name, agent] : agents_) {
    // Agents notice at different times.
    After(milliseconds(Pick(1, 3000)), [this, &agent, id = agent.session] {
      if (agent.session == id) agent.session = 0;
    });
  }
}

std::string SimWorld::Create(const std::string& request_id, int ranks, int64_t steps,
                             int64_t interval) {
  if (core_ == nullptr) return "";
  v1::CreateJobRequest request;
  request.set_request_id(request_id);
  v1::JobSpec& spec = *request.mutable_spec();
  spec.set_name(request_id);
  spec.set_model("/model");
  spec.mutable_data()->set_train("/data");
  spec.mutable_mesh()->set_ranks(ranks);
  spec.mutable_training()->set_steps(steps);
  spec.mutable_checkpoint()->set_output("/out/" + request_id);
  spec.mutable_checkpoint()->set_interval_steps(interval);
  spec.mutable_restart()->set_max_attempts(40);
  const auto replay = FindReplay(store_, request);
  if (!replay.ok()) return "";
  if (*replay) return (*replay)->uid();
  const auto uid = CreateJob(core_->context(), request, *planner_.Plan(spec, {}, std::nullopt),
                             spec.checkpoint().output());
  if (!uid.ok() || !core_->Flush().ok()) return "";
  return *uid;
}

void SimWorld::RandomWish() {
  if (core_ == nullptr || core_->context().book.jobs().empty()) return;
  const auto& jobs = core_->context().book.jobs();
  auto it = jobs.begin();
  std::advance(it, Pick(0, static_cast<int>(jobs.size()) - 1));
  const std::string name = it->second.job().name();
  CoreContext& core = core_->context();
  switch (Pick(0, 8)) {
    case 0:
      (void)CancelJob(core, name, "");
      break;
    case 1:
    case 2:
    case 3:
      (void)PauseJob(core, name, "");
      break;
    case 4:
    case 5:
    case 6:
      (void)ResumeJob(core, name, "");
      break;
    case 7:
      (void)RequestCheckpoint(core, name);
      break;
    default:
      if (Chance(0.3)) (void)DeleteJob(core, name, "");
  }
  (void)core_->Flush();
}

void SimWorld::Run(milliseconds duration, const FaultRates& faults) {
  const milliseconds end = clock_.now + duration;
  for (milliseconds next = clock_.now; next <= end; next += kTick) {
    while (!events_.empty() && events_.top().time <= next) {
      const Event event = events_.top();
      events_.pop();
      clock_.now = std::max(clock_.now, event.time);
      event.run();
    }
    clock_.now = next;
    Tick(faults);
  }
}

void SimWorld::Tick(const FaultRates& faults) {
  if (core_ == nullptr && clock_.now >= coordinator_back_) StartCoordinator();
  for (auto& [name, agent] : agents_) {
    if (!agent.alive) continue;
    if (agent.session == 0 && clock_.now >= agent.unreachable_until && core_ != nullptr &&
        Chance(0.6))
      Connect(agent);
    if (agent.session != 0 && clock_.now.count() % 2000 == 0) {
      ConnectRequest message;
      message.mutable_heartbeat()->set_sequence(1);
      ToCore(agent, message);
    }
  }
  StepGangs();
  if (Chance(faults.per_tick)) InjectFault();
  if (core_ != nullptr) {
    (void)core_->Step();
    Follow();
    CheckInvariants();
  }
}

void SimWorld::InjectFault() {
  auto it = agents_.begin();
  std::advance(it, Pick(0, static_cast<int>(agents_.size()) - 1));
  SimAgent& agent = it->second;
  const int kind = Pick(0, 10);
  ++counters_[absl::StrCat("fault", kind)];
  switch (kind) {
    case 0:
      CrashAgent(agent);
      break;
    case 1:
      Break(agent);
      break;
    case 2:  // unreachable, its processes go on
      agent.unreachable_until = clock_.now + milliseconds(Pick(1000, 25000));
      Break(agent);
      break;
    case 3:
    case 4:
      if (core_ != nullptr) {
        StopCoordinator();
        coordinator_back_ = clock_.now + milliseconds(Pick(0, 15000));
      }
      break;
    case 5:
      store_.FailCommits(Pick(1, 3));
      break;
    case 6:
    case 7: {  // a rank dies
      std::vector<std::pair<SimAttempt*, SimRank*>> live;
      for (auto& [key, attempt] : agent.attempts) {
        for (SimRank& rank : attempt.ranks) {
          if (!rank.exited) live.push_back({&attempt, &rank});
        }
      }
      if (live.empty()) break;
      auto [attempt, rank] = live[Pick(0, static_cast<int>(live.size()) - 1)];
      static const char* const kCodes[] = {"KILLED", "KILLED", "CRASHED", "DEVICE"};
      Exit(agent, *attempt, *rank, kCodes[Pick(0, 3)], false);
      break;
    }
    case 8:
      RandomWish();
      break;
    case 9:
      if (core_ != nullptr) {
        const auto wish = Chance(0.5) ? NodeWish::kUncordon
                                      : (Chance(0.5) ? NodeWish::kDrain : NodeWish::kCordon);
        (void)SetNode(core_->context(), agent.node, wish);
        (void)core_->Flush();
      }
      break;
    case 10:
      if (!agent.attempts.empty()) Hang(agent.attempts.begin()->first.first);
      break;
  }
}

std::string SimWorld::FailRank0(const std::string& uid, const std::string& code) {
  for (auto& [name, agent] : agents_) {
    for (auto& [key, attempt] : agent.attempts) {
      for (SimRank& rank : attempt.ranks) {
        if (key.first != uid || rank.rank != 0 || rank.exited || !rank.ready) continue;
        Exit(agent, attempt, rank, code, false);
        return name;
      }
    }
  }
  return "";
}

void SimWorld::Pause(const std::string& uid) {
  (void)PauseJob(core_->context(), core_->context().book.Find(uid)->job().name(), "");
  (void)core_->Flush();
}

void SimWorld::Hang(const std::string& uid) {
  for (auto& [key, gang] : gangs_) gang.hangs |= key.first == uid && gang.running;
}

void SimWorld::Heal() {
  store_.FailCommits(0);
  coordinator_back_ = clock_.now;
  for (auto& [name, agent] : agents_) agent.unreachable_until = clock_.now;
  if (core_ == nullptr) StartCoordinator();
  for (auto& [name, agent] : agents_) (void)SetNode(core_->context(), name, NodeWish::kUncordon);
  std::vector<std::string> names;
  for (const auto& [uid, record] : core_->context().book.jobs())
    names.push_back(record.job().name());
  for (const std::string& name : names) (void)ResumeJob(core_->context(), name, "");
  (void)core_->Flush();
}

// The watcher: revisions grow, each stored change is seen once.
void SimWorld::Follow() {
  bool lost = false;
  while (const auto change = published_->Next(watch_index_, &lost)) {
    watch_index_ = change->index;
    if (change->revision < watch_revision_) Violation("a watcher saw history go back");
    const bool stored = change->revision > watch_revision_;
    if (!stored && change->job == nullptr) Violation("a watcher saw a deletion twice");
    watch_revision_ = change->revision;
    if (change->job == nullptr) {
      watched_.erase(change->name);
    } else {
      watched_[change->name] = *change->job;
    }
  }
  if (lost) Violation("the watcher fell behind");
}

void SimWorld::CheckInvariants() {
  std::map<std::pair<std::string, int>, std::string> owners;
  for (const auto& [uid, record] : core_->context().book.jobs()) {
    if (HoldsSlots(record.job().state()) != record.has_launch())
      Violation(uid + ": state and launch disagree");
    if (!record.has_launch()) continue;
    for (const auto& placement : record.job().attempts().rbegin()->placements()) {
      const auto [it, fresh] = owners.emplace(std::pair(placement.node(), placement.slot()), uid);
      if (!fresh)
        Violation(absl::StrFormat("slot %d of %s is owned by %s and %s", placement.slot(),
                                  placement.node(), it->second, uid));
    }
  }
}

void SimWorld::CheckAtEnd() {
  if (core_ == nullptr) return Violation("the coordinator is not up at the end");
  for (const auto& [uid, record] : core_->context().book.jobs()) {
    const v1::Job& job = record.job();
    if (!job.terminal()) {
      Violation(absl::StrFormat("%s is still %s (%s: %s)", job.name(), StateName(job.state()),
                                job.reason().code(), job.reason().message()));
    }
    if (LiveProcesses(uid) != 0) Violation(job.name() + " left processes");
    if (job.state() == v1::JOB_STATE_SUCCEEDED) {
      const auto it = files_.find(job.output_model());
      if (it == files_.end() || it->second.first != uid) Violation(job.name() + " has no result");
    }
    ++counters_[StateName(job.state())];
    const auto watched = watched_.find(job.name());
    if (watched == watched_.end() || watched->second.state() != job.state()) {
      Violation(job.name() + ": the watcher saw something else");
    }
  }
  if (watched_.size() != core_->context().book.jobs().size())
    Violation("the watcher missed a deletion");
  for (const auto& [name, agent] : agents_) {
    for (const auto& [key, attempt] : agent.attempts) {
      for (const SimRank& rank : attempt.ranks) {
        if (!rank.exited)
          Violation(absl::StrFormat("a process of %s is left on %s", key.first, name));
      }
    }
  }
}

int SimWorld::LiveProcesses(const std::string& uid) const {
  int count = 0;
  for (const auto& [name, agent] : agents_) {
    for (const auto& [key, attempt] : agent.attempts) {
      if (key.first != uid) continue;
      for (const SimRank& rank : attempt.ranks) count += !rank.exited;
    }
  }
  return count;
}

}  // namespace switchyard::coordinator::simulation
