// Nodes as the coordinator sees them: inventory, session, lease, and what their agents last
// reported.
//
// Decides only about liveness. One thread; time is given.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "switchyard/agent/v1/agent.pb.h"
#include "switchyard/v1/node.pb.h"

namespace switchyard::coordinator {

// (job uid, epoch)
using AttemptKey = std::pair<std::string, int64_t>;

struct NodeEntry {
  v1::Node node;            // inventory, flags, state; `name` is "nodes/{node}"
  uint64_t session = 0;     // 0: not connected
  std::string incarnation;  // of the newest session
  Clock::SteadyTime last_heard;
  int protocol = 0;        // of the newest session
  bool allocated = false;  // lent for one attempt: of no use to others, forgotten afterwards
  std::map<AttemptKey, agent::v1::AttemptStatus> attempts;  // as reported in this session

  // Agents of one machine (one memory domain) each offer all of its memory, as if alone. What
  // their CPU slots may use together, 0: unknown; and the part of its offer that each has of it.
  int64_t machine_bytes = 0;
  double memory_share = 1;

  // What a rank in `slot` may use.
  int64_t SlotBytes(const v1::Slot& slot) const;
  bool connected() const { return session != 0; }
  // Connected or within its lease.
  bool alive() const { return node.state() != v1::NODE_STATE_LOST; }
};

class NodeTable {
 public:
  struct Options {
    std::chrono::milliseconds heartbeat_interval{2000};
    std::chrono::milliseconds suspect_after{5000};
    std::chrono::milliseconds lease{10000};
    // A node of an earlier run of the coordinator has so long to dial in again.
    std::chrono::milliseconds restart_grace{30000};
  };

  explicit NodeTable(const Options& options) : options_(options) {}

  const Options& options() const { return options_; }
  const std::map<std::string, NodeEntry>& nodes() const { return nodes_; }  // by bare node name
  const NodeEntry* Find(const std::string& name) const;
  NodeEntry* FindMutable(const std::string& name);

  // A node known from the store; it counts as suspect until it dials in or its grace is over.
  void Restore(const v1::Node& node, Clock::SteadyTime now);
  // A session began; its report replaces all that was known of the node's attempts.
  NodeEntry& Hello(const agent::v1::Hello& hello, uint64_t session, Clock::SteadyTime now);
  // True when another live agent process holds the name, so that this one must be refused.
  bool IsTaken(const agent::v1::Hello& hello, Clock::SteadyTime now) const;
  void Heard(const std::string& name, uint64_t session, Clock::SteadyTime now);
  // Ignored when the session is not the node's current one.
  void Report(const std::string& name, uint64_t session, const agent::v1::AttemptStatus& status);
  void Disconnected(const std::string& name, uint64_t session);
  void Forget(const std::string& name, const AttemptKey& attempt);

  void Remove(const std::string& name);

  // Moves nodes between READY, SUSPECT and LOST; returns the names of those that changed. A long
  // time since the last call means that the coordinator itself stood still: leases are extended by
  // it.
  std::vector<std::string> Tick(Clock::SteadyTime now);

 private:
  void ShareMemory();

  Options options_;
  std::map<std::string, NodeEntry> nodes_;
  Clock::SteadyTime last_tick_{};
};

}  // namespace switchyard::coordinator
