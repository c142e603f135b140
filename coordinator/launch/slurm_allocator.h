// Nodes lent by Slurm: one sbatch job an attempt, whose tasks are agents.
//
// A thread looks at the queue every few seconds, and at once when something new is wanted. A job is
// found again by its name (store, job, epoch), so whatever happens to a coordinator or to an answer
// of sbatch, an attempt has one Slurm job: nothing is submitted before squeue, and for what squeue
// has forgotten sacct, have said that no job of that name exists. What they show of this store's
// names but is not wanted any more is cancelled.
#pragma once

#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "coordinator/launch/node_allocator.h"
#include "coordinator/launch/slurm_commands.h"
#include "coordinator/launch/wish_board.h"

namespace switchyard::coordinator {

class SlurmAllocator final : public NodeAllocator {
 public:
  explicit SlurmAllocator(launch::v1::SlurmConfig config);
  // Slurm's jobs go on; the next coordinator finds them.
  ~SlurmAllocator() override;

  std::vector<PlannerSlot> Offer() const override;
  void Want(const std::string& store_id, std::vector<Allocation> allocations) override;
  AllocationStatus Look(const AttemptKey& attempt) const override;

 private:
  void Run();
  // One look at the queue and what follows from it.
  void Turn(const Wish& wish);
  // Of an attempt that squeue does not show.
  AllocationStatus Missing(const Wish& wish, const Allocation& allocation);
  AllocationStatus Submit(const std::string& name, const Allocation& allocation);
  // Cancels all but the oldest job of one name.
  static void CancelDoubles(std::vector<const SlurmJob*>& jobs);

  const launch::v1::SlurmConfig config_;
  WishBoard board_;

  // Of the thread.
  std::map<AttemptKey, std::string> ids_;  // Slurm's, of attempts that it has accepted
  std::set<AttemptKey> cancelled_;         // by us: how they end is no news
  bool reachable_ = true;
  std::thread thread_;
};

}  // namespace switchyard::coordinator
