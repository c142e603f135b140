// What the parts of the coordinator's core share. One thread.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/clock.h"
#include "coordinator/job/job_book.h"
#include "coordinator/launch/job_planner.h"
#include "coordinator/launch/node_allocator.h"
#include "coordinator/schedule/node_table.h"
#include "switchyard/agent/v1/agent.pb.h"

namespace switchyard::coordinator {

// First agent protocol with Leave.
inline constexpr int kProtocolWithLeave = 2;

// Carries messages to agents. Never blocks; may lose everything of a session that breaks.
class AgentTransport {
 public:
  virtual ~AgentTransport() = default;
  virtual void Send(uint64_t session, const agent::v1::ConnectResponse& message) = 0;
  // Ends a session from this side, for example because its lease is over.
  virtual void Close(uint64_t session) = 0;
};

// Messages to agents that wait for the transaction they depend on.
struct Outgoing {
  std::string node;
  uint64_t session = 0;
  agent::v1::ConnectResponse message;
};

struct CoreOptions {
  NodeTable::Options nodes;
  std::chrono::milliseconds execution_grant{600000};
  std::chrono::milliseconds resend{5000};             // level-triggered messages without effect
  std::chrono::milliseconds launch_timeout{1800000};  // from StartRanks to every rank ready
  std::chrono::milliseconds agents_timeout{600000};   // from an allocation's start to its agents
  // A running attempt whose ranks say nothing for so long, or longer where steps are slow, hangs.
  std::chrono::milliseconds silence_floor{180000};
  std::chrono::milliseconds avoid_node{600000};  // after it failed an attempt of the job
  std::chrono::milliseconds progress_interval{
      1000};  // between published updates of a job's progress
};

struct CoreContext {
  const CoreOptions& options;
  const Clock& clock;
  JobBook& book;
  NodeTable& nodes;
  JobPlanner& planner;
  std::function<std::string()> new_id;  // unique, [0-9a-z]+
  std::vector<Outgoing> outbox;
  std::map<std::string, Sent>
      stray_stops;                     // StopAttempt for what is not current, by node and attempt
  NodeAllocator* allocator = nullptr;  // null: jobs run on the nodes whose agents dial in

  // Queues `message` unless the node is not connected.
  bool Send(const std::string& node, agent::v1::ConnectResponse message) {
    const NodeEntry* entry = nodes.Find(node);
    if (entry == nullptr || !entry->connected()) return false;
    outbox.push_back({node, entry->session, std::move(message)});
    return true;
  }
  // Send, but only once a session for each `key`, and again after `again` (0: never again).
  bool SendOnce(LiveJob& live, const std::string& key, const std::string& node,
                std::chrono::milliseconds again, const agent::v1::ConnectResponse& message) {
    const NodeEntry* entry = nodes.Find(node);
    if (entry == nullptr || !entry->connected()) return false;
    Sent& sent = live.sent[key + "@" + node];
    const auto now = clock.Steady();
    if (sent.session == entry->session && (again.count() == 0 || now - sent.time < again))
      return false;
    sent = {entry->session, now};
    return Send(node, message);
  }
};

}  // namespace switchyard::coordinator
