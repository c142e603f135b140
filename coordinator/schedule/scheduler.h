// Gang scheduling: which queued jobs get which free slots. Pure.
//
// Order is priority, then first in. A job gets all its slots or none. A job that could run on the
// nodes there are, but not now, holds back every later job that wants the same kind of device (so
// smaller later jobs never starve it); jobs of another device kind go past it, and so does everyone
// past a job that could not run even on empty nodes.
//
// CPU ranks of a job lie in one memory domain; on GPUs every expert-parallel group lies on one
// node (the planner's rule, coordinator/plan/placement.h).
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace switchyard::coordinator {

struct SchedulerSlot {
  std::string node;
  int index = 0;
  std::string device;         // "cpu" or "cuda"
  int64_t memory_bytes = 0;   // 0: unknown, any rank fits
  std::string memory_domain;  // CPU ranks of one job must share it
  bool free = false;
};

struct Placement {
  int rank = 0;
  std::string node;
  int slot = 0;
  bool operator==(const Placement&) const = default;
};

struct QueuedJob {
  std::string uid;
  int32_t priority = 0;
  int64_t create_sequence = 0;
  bool backing_off = false;  // keeps its place, is not started now
  int ranks = 0;
  std::string device;
  int expert_parallel = 1;          // divides ranks
  int64_t slot_bytes = 0;           // that a slot must have: the plan's bytes and its margin
  std::vector<Placement> previous;  // of its last attempt; taken again where possible
  std::set<std::string> avoided;    // nodes that it goes to only when no others have room now
};

struct Admission {
  std::string uid;
  std::vector<Placement> placements;  // by rank
};

struct ScheduleResult {
  std::vector<Admission> admitted;
  std::vector<std::string> queue;       // uids that wait, in order
  std::vector<std::string> impossible;  // of those: would not fit on empty nodes either
};

// `room`: bytes by memory domain that are not yet promised to ranks there; a domain without an
// entry has no such limit. Slots alone do not tell: what a job holds was promised before agents
// came or went.
ScheduleResult Schedule(std::vector<QueuedJob> jobs, std::vector<SchedulerSlot> slots,
                        std::map<std::string, int64_t> room = {});

}  // namespace switchyard::coordinator
