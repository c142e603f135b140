// What the agent must not do again: per job the newest epoch heard of and the epochs that are over.
//
// Commands of one stream are ordered, but a second coordinator, a replay or a reordering proxy may
// bring an old one back; starting it would run an attempt twice.
#pragma once

#include <map>
#include <string>

#include "common/clock.h"
#include "worker/agent/core/types.h"

namespace switchyard::agent {

class Ledger {
 public:
  struct Job {
    int64_t newest = 0;        // newest epoch of any command
    int64_t over_through = 0;  // no attempt with this epoch or an older one may start
    int64_t owed_end =
        0;  // epoch whose ENDED is still to be said for an attempt that was never here; 0: none
    Clock::SteadyTime touched{};
  };

  Job& Touch(const std::string& job_uid, Clock::SteadyTime now) {
    Job& job = jobs_[job_uid];
    job.touched = now;
    return job;
  }
  bool IsStale(const AttemptKey& key) const {
    const auto it = jobs_.find(key.job_uid);
    return it != jobs_.end() &&
           (key.epoch < it->second.newest || key.epoch <= it->second.over_through);
  }
  int64_t newest(const std::string& job_uid) const {
    const auto it = jobs_.find(job_uid);
    return it == jobs_.end() ? 0 : it->second.newest;
  }
  std::map<std::string, Job>& jobs() { return jobs_; }
  // Forgets jobs that nothing was heard of for kKept; `in_use` says which ones must stay.
  template <typename InUse>
  void Prune(Clock::SteadyTime now, InUse in_use) {
    std::erase_if(jobs_, [&](const auto& item) {
      return now - item.second.touched > kKept && item.second.owed_end == 0 && !in_use(item.first);
    });
  }

  static constexpr std::chrono::hours kKept{24};

 private:
  std::map<std::string, Job> jobs_;
};

}  // namespace switchyard::agent
