// What users may do to jobs, on the writer thread: check against what is stored, write the wish,
// return.
//
// Nothing here moves a job; the reconciler does.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/reconcile/core_context.h"
#include "switchyard/v1/job_service.pb.h"

namespace switchyard::coordinator {

// The answer stored for the request's id: set when the request was seen before. AlreadyExists when
// the id was used with another request. Any thread.
absl::StatusOr<std::optional<v1::Job>> FindReplay(JobStore& store,
                                                  const v1::CreateJobRequest& request);

// Stores a job with its plan (feasible), and it as the answer to the request's id. Returns its uid.
// `resolved_output` is ResolvedPath of checkpoint.output: files are not looked at on this thread.
absl::StatusOr<std::string> CreateJob(CoreContext& core, const v1::CreateJobRequest& request,
                                      const v1::Plan& plan, const std::string& resolved_output);
// The job as CreateJob would make it, not stored.
absl::StatusOr<v1::Job> PreviewJob(CoreContext& core, const v1::CreateJobRequest& request,
                                   const v1::Plan& plan, const std::string& resolved_output);

// Each returns the job's uid; NotFound, Aborted (etag) or FailedPrecondition (state).
absl::StatusOr<std::string> CancelJob(CoreContext& core, const std::string& name,
                                      const std::string& etag);
absl::StatusOr<std::string> PauseJob(CoreContext& core, const std::string& name,
                                     const std::string& etag);
absl::StatusOr<std::string> ResumeJob(CoreContext& core, const std::string& name,
                                      const std::string& etag);
absl::StatusOr<std::string> RetryJob(CoreContext& core, const std::string& name,
                                     const std::string& etag);
absl::StatusOr<std::string> DeleteJob(CoreContext& core, const std::string& name,
                                      const std::string& etag);

absl::Status RequestCheckpoint(CoreContext& core, const std::string& job_name);
absl::Status DeleteCheckpoint(CoreContext& core, const std::string& name);

enum class NodeWish { kCordon, kUncordon, kDrain };
// `node` is a bare node name.
absl::Status SetNode(CoreContext& core, const std::string& node, NodeWish wish);
// FailedPrecondition while the node is connected or an attempt is on it.
absl::Status DeleteNode(CoreContext& core, const std::string& node);

}  // namespace switchyard::coordinator
