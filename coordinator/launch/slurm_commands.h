// Slurm's command line tools as functions: what they are called with and what their answers mean.
//
// No state and no policy; launch/slurm_allocator.h decides. Works with Slurm 20.11 and newer.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/launch/node_allocator.h"
#include "switchyard/launch/v1/slurm.pb.h"

namespace switchyard::coordinator {

// One job as squeue or sacct tells it.
struct SlurmJob {
  std::string id;
  std::string name;
  std::string state;   // "PENDING", "RUNNING", "TIMEOUT"...
  std::string reason;  // why it waits
  std::string nodes;   // "n[1-2]"
};

// "switchyard-{store_id}-{job_uid}-e{epoch}": the same for every try to submit this attempt.
std::string SlurmJobName(const std::string& store_id, const AttemptKey& attempt);
// The attempt in such a name of this store; empty uid for any other name.
AttemptKey AttemptOfSlurmJob(const std::string& store_id, const std::string& name);

// What a state means for an attempt; `detail` in words.
AllocationStatus StatusOfSlurmJob(const SlurmJob& job);

// The file of --slurm; InvalidArgument names every wrong or missing field.
absl::StatusOr<launch::v1::SlurmConfig> ReadSlurmConfig(const std::string& path);

// The user's jobs, also those that ended in the last minutes.
absl::StatusOr<std::vector<SlurmJob>> ListSlurmJobs();
// Jobs of this name that accounting knows, newest last; empty where the cluster keeps no accounts.
absl::StatusOr<std::vector<SlurmJob>> FindSlurmAccounts(const std::string& name);
// Submits; the new job's id. InvalidArgument when Slurm refuses it for good, any other error when
// nobody knows: the caller must look for a job of this name before it tries again.
absl::StatusOr<std::string> SubmitSlurmJob(const launch::v1::SlurmConfig& config,
                                           const std::string& name, const Allocation& allocation);
absl::Status CancelSlurmJob(const std::string& id);

// What sbatch is given on standard input: starts one agent a node.
std::string SlurmScript(const launch::v1::SlurmConfig& config, const std::string& name,
                        const Allocation& allocation);

}  // namespace switchyard::coordinator
