// The coordinator without threads and network: takes agents' messages, moves jobs, stores, then
// tells.
//
// Order is the contract: a change is in the store before anyone hears of it or acts on it. Driven
// by one thread (service/core_loop.h) or by a simulation with a hand-turned clock.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/history/step_aggregator.h"
#include "coordinator/reconcile/core_context.h"
#include "coordinator/reconcile/reconciler.h"
#include "coordinator/report/job_observer.h"

namespace switchyard::coordinator {

// Hears of committed history; what WatchJobs, ListJobs and GetJob are served from.
class CoreListener {
 public:
  virtual ~CoreListener() = default;
  // At start: all jobs and the kept history.
  virtual void OnLoaded(const StoreSnapshot& snapshot, const std::vector<v1::Job>& jobs) = 0;
  virtual void OnCommitted(const Committed& committed) = 0;
  // Progress, phase or place in the queue changed; not stored.
  virtual void OnProgress(const v1::Job& job) = 0;
};

class Core {
 public:
  Core(const CoreOptions& options, const Clock& clock, JobStore& store, JobPlanner& planner,
       AgentTransport& transport, std::function<std::string()> new_id);

  void AddListener(CoreListener* listener) { listeners_.push_back(listener); }
  void AddObserver(JobObserver* observer) { observers_.push_back(observer); }

  // Loads the store. Call once, after listeners and observers are added.
  absl::Status Start();

  // A session began; sends Welcome. AlreadyExists when another live agent has the name,
  // InvalidArgument for a bad name or no common protocol version.
  absl::Status OnHello(uint64_t session, const agent::v1::Hello& hello);
  // Any later message of `node`'s session.
  void OnMessage(uint64_t session, const std::string& node,
                 const agent::v1::ConnectRequest& message);
  void OnDisconnected(uint64_t session, const std::string& node);

  // Moves everything as far as it goes now, storing and telling between steps. OK, or the store's
  // error: then memory is back at what is stored, and the next call tries again.
  absl::Status Step();
  // Stores and tells what was changed since. As Step, but moves nothing.
  absl::Status Flush();

  CoreContext& context() { return context_; }
  // A node as users see it, with who holds its slots.
  v1::Node NodeView(const std::string& name) const;

 private:
  void OnRankReport(const agent::v1::RankReport& report);
  void OnStep(const std::string& uid, const v1::StepSample& sample);
  void StoreNode(const std::string& name);
  void TickNodes();
  // Nodes that were lent for an attempt which is over.
  void RemoveLeftNodes();
  void RemoveNode(const std::string& name);
  void PublishLive();
  void PublishNodes();

  CoreOptions options_;
  JobBook book_;
  NodeTable nodes_;
  CoreContext context_;
  Reconciler reconciler_;
  AgentTransport& transport_;
  std::vector<CoreListener*> listeners_;
  std::vector<JobObserver*> observers_;
  std::map<std::string, StepAggregator> aggregators_;   // by job uid
  Clock::SteadyTime last_store_error_{};                // told at intervals, not with every try
  std::map<std::string, std::string> published_nodes_;  // serialized, to tell changes only
};

}  // namespace switchyard::coordinator
