#include "coordinator/service/job_commands.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/rpc/violations.h"
#include "common/status_macros.h"
#include "coordinator/job/job_state.h"
#include "coordinator/job/names.h"
#include "coordinator/job/proto_time.h"
#include "coordinator/plan/plan_text.h"
#include "coordinator/reconcile/attempt_facts.h"
#include "coordinator/spec/output_directory.h"

namespace switchyard::coordinator {
namespace {

using store::v1::JobRecord;

std::string RequestHash(v1::CreateJobRequest request) {
  request.clear_request_id();
  // Maps serialize in any order; JSON-like text does not help, so hash field by field through a
  // sorted copy.
  std::string labels;
  std::map<std::string, std::string> sorted(request.spec().labels().begin(),
                                            request.spec().labels().end());
  for (const auto& [key, value] : sorted) absl::StrAppend(&labels, key, "\n", value, "\n");
  request.mutable_spec()->clear_labels();
  const std::string bytes = request.SerializeAsString() + labels;
  uint64_t hash = 14695981039346656037u;
  for (const unsigned char c : bytes) hash = (hash ^ c) * 1099511628211u;
  return absl::StrFormat("%016x-%d", hash, bytes.size());
}

absl::Status IdReused(const v1::CreateJobRequest& request) {
  return rpc::Error(
      absl::StatusCode::kAlreadyExists, "REQUEST_ID_REUSED",
      absl::StrFormat("request_id \"%s\" was used with another request: take a new one",
                      request.request_id()));
}

std::string ProjectOf(const v1::JobSpec& spec) {
  return spec.project().empty() ? "default" : spec.project();
}

// The requested id, or the spec's name made unique.
absl::StatusOr<std::string> ChooseName(CoreContext& core, const v1::CreateJobRequest& request) {
  const std::string project = ProjectOf(request.spec());
  if (!request.job_id().empty()) {
    const std::string name = MakeJobName(project, request.job_id());
    if (core.book.FindByName(name) == nullptr) return name;
    return rpc::Error(
        absl::StatusCode::kAlreadyExists, "JOB_EXISTS",
        absl::StrFormat("%s exists already: take another job_id, or delete that job", name));
  }
  const std::string& base = request.spec().name();
  for (int i = 1;; ++i) {
    const std::string suffix = i == 1 ? "" : absl::StrCat("-", i);
    std::string stem = base.substr(0, 63 - suffix.size());
    while (!stem.empty() && stem.back() == '-') stem.pop_back();
    const std::string name = MakeJobName(project, stem + suffix);
    if (core.book.FindByName(name) == nullptr) return name;
  }
}

// No two jobs may ever write the same files: no output may be, or lie in, that of another job.
absl::Status CheckOutputIsFree(const CoreContext& core, const std::string& output,
                               const std::string& resolved) {
  const auto overlap = [](const std::string& a, const std::string& b) {
    return IsInside(a, b) || IsInside(b, a);
  };
  for (const auto& [uid, record] : core.book.jobs()) {
    const v1::Job& job = record.job();
    if (job.terminal()) continue;
    const std::string taken = NormalPath(job.spec().checkpoint().output());
    const std::string taken_resolved =
        record.resolved_output().empty() ? taken : record.resolved_output();
    if (!overlap(NormalPath(output), taken) && !overlap(resolved, taken_resolved)) continue;
    return rpc::Error(
        absl::StatusCode::kFailedPrecondition, "OUTPUT_IN_USE",
        absl::StrFormat("checkpoint.output \"%s\" %s that of %s, which is %s: take another "
                        "directory, or cancel that job",
                        output,
                        resolved == taken_resolved           ? "is"
                        : IsInside(resolved, taken_resolved) ? "lies in"
                                                             : "contains",
                        job.name(), StateName(job.state())));
  }
  return absl::OkStatus();
}

absl::StatusOr<const JobRecord*> FindJob(CoreContext& core, const std::string& name,
                                         const std::string& etag) {
  if (!ParseJobName(name)) {
    return rpc::InvalidArgument(
        {{"name", absl::StrCat("is \"", name, "\"; give \"projects/{project}/jobs/{job_id}\"")}});
  }
  const JobRecord* record = core.book.FindByName(name);
  if (record == nullptr || record->job().desired_state() == v1::DESIRED_STATE_DELETE) {
    return rpc::NotFound("switchyard.v1.Job", name);
  }
  if (!etag.empty() && etag != record->job().etag()) {
    return rpc::Error(absl::StatusCode::kAborted, "ETAG_MISMATCH",
                      absl::StrFormat("%s has changed (etag is %s, not %s): read it again", name,
                                      record->job().etag(), etag));
  }
  return record;
}

absl::Status WrongState(const v1::Job& job, const std::string& what) {
  return rpc::Error(absl::StatusCode::kFailedPrecondition, "WRONG_STATE",
                    absl::StrFormat("%s is %s; %s", job.name(), StateName(job.state()), what));
}

// A job whose result is committed has nothing left to train: another attempt would end without one
// of its own, since the name is taken.
absl::Status CheckIsNoResult(const v1::Job& job, const store::v1::CheckpointRecord& final) {
  const std::string& path = final.checkpoint().path();
  switch (final.checkpoint().state()) {
    case v1::CHECKPOINT_STATE_AVAILABLE:
      return WrongState(job, absl::StrCat("its result is complete in ", path,
                                          ": use that, or submit a job with another "
                                          "checkpoint.output"));
    case v1::CHECKPOINT_STATE_COMMITTED:
      return WrongState(job, absl::StrFormat("its result is complete and is being put in place as "
                                             "%s: an agent that sees %s renames it, start one if "
                                             "none is connected, or submit a job with another "
                                             "checkpoint.output",
                                             path, final.stage_path()));
    default:
      return absl::OkStatus();
  }
}

void Wish(CoreContext& core, const std::string& uid, v1::DesiredState desired, const char* event) {
  v1::Job& job = *core.book.Edit(uid).mutable_job();
  job.set_desired_state(desired);
  core.book.AddEvent(job.name(), job.epoch(), event, v1::EVENT_SEVERITY_INFO,
                     absl::StrCat("asked for while ", StateName(job.state())));
}

}  // namespace

absl::StatusOr<std::optional<v1::Job>> FindReplay(JobStore& store,
                                                  const v1::CreateJobRequest& request) {
  std::optional<v1::Job> answer;
  if (request.request_id().empty()) return answer;
  if (request.request_id().size() > 64) {
    return rpc::InvalidArgument({{"request_id", absl::StrCat("has ", request.request_id().size(),
                                                             " characters; at most 64")}});
  }
  std::optional<RequestRecord> stored;
  SWITCHYARD_ASSIGN_OR_RETURN(stored, store.FindRequest(request.request_id()));
  if (!stored) return answer;
  if (stored->request_hash != RequestHash(request)) {
    return IdReused(request);
  }
  if (!answer.emplace().ParseFromString(stored->response)) {
    return absl::DataLossError("the stored answer cannot be read");
  }
  return answer;
}

absl::StatusOr<v1::Job> PreviewJob(CoreContext& core, const v1::CreateJobRequest& request,
                                   const v1::Plan& plan, const std::string& resolved_output) {
  v1::Job job;
  std::string name;
  SWITCHYARD_ASSIGN_OR_RETURN(name, ChooseName(core, request));
  const std::string& output = request.spec().checkpoint().output();
  SWITCHYARD_RETURN_IF_ERROR(CheckOutputIsFree(core, output, resolved_output));
  job.set_name(name);
  *job.mutable_spec() = request.spec();
  job.mutable_spec()->mutable_checkpoint()->set_output(NormalPath(output));
  job.mutable_spec()->set_project(ProjectOf(request.spec()));
  *job.mutable_plan() = plan;
  job.set_state(v1::JOB_STATE_QUEUED);
  job.set_desired_state(v1::DESIRED_STATE_RUN);
  job.mutable_progress()->set_total_steps(plan.total_steps());
  *job.mutable_create_time() = ToTimestamp(core.clock.Wall());
  job.mutable_reason()->set_code("WAITING_FOR_SLOTS");
  job.mutable_reason()->set_message(
      absl::StrFormat("waits for %d %s slots", plan.ranks(), plan.device()));
  return job;
}

absl::StatusOr<std::string> CreateJob(CoreContext& core, const v1::CreateJobRequest& request,
                                      const v1::Plan& plan, const std::string& resolved_output) {
  if (!request.request_id().empty()) {
    std::string hash;
    const std::string twin = core.book.PendingRequest(request.request_id(), &hash);
    if (!twin.empty())
      return hash == RequestHash(request) ? absl::StatusOr<std::string>(twin) : IdReused(request);
  }
  JobRecord record;
  SWITCHYARD_ASSIGN_OR_RETURN(*record.mutable_job(),
                              PreviewJob(core, request, plan, resolved_output));
  record.set_resolved_output(resolved_output);
  const std::string uid = core.new_id();
  record.mutable_job()->set_uid(uid);
  record.set_create_sequence(core.book.NextSequence());
  core.book.Add(record);
  core.book.live(uid).progress = record.job().progress();
  core.book.AddEvent(record.job().name(), 0, "JobCreated", v1::EVENT_SEVERITY_INFO,
                     SummarizePlan(plan));
  for (const std::string& warning : plan.warnings()) {
    core.book.AddEvent(record.job().name(), 0, "PlanWarning", v1::EVENT_SEVERITY_WARNING, warning);
  }
  if (!request.request_id().empty()) {
    core.book.AddRequest(request.request_id(), RequestHash(request), uid);
  }
  return uid;
}

absl::StatusOr<std::string> CancelJob(CoreContext& core, const std::string& name,
                                      const std::string& etag) {
  const JobRecord* record;
  SWITCHYARD_ASSIGN_OR_RETURN(record, FindJob(core, name, etag));
  const v1::Job& job = record->job();
  if (job.desired_state() == v1::DESIRED_STATE_CANCEL) return job.uid();
  if (job.terminal()) return WrongState(job, "it has ended, there is nothing to cancel");
  Wish(core, job.uid(), v1::DESIRED_STATE_CANCEL, "CancelRequested");
  return job.uid();
}

absl::StatusOr<std::string> PauseJob(CoreContext& core, const std::string& name,
                                     const std::string& etag) {
  const JobRecord* record;
  SWITCHYARD_ASSIGN_OR_RETURN(record, FindJob(core, name, etag));
  const v1::Job& job = record->job();
  if (job.desired_state() == v1::DESIRED_STATE_PAUSE) return job.uid();
  if (job.terminal() || job.desired_state() != v1::DESIRED_STATE_RUN) {
    return WrongState(job, "only a job that runs or is queued can be paused");
  }
  Wish(core, job.uid(), v1::DESIRED_STATE_PAUSE, "PauseRequested");
  return job.uid();
}

absl::StatusOr<std::string> ResumeJob(CoreContext& core, const std::string& name,
                                      const std::string& etag) {
  const JobRecord* record;
  SWITCHYARD_ASSIGN_OR_RETURN(record, FindJob(core, name, etag));
  const v1::Job& job = record->job();
  if (job.terminal()) return WrongState(job, "RetryJob runs a failed or cancelled job again");
  if (job.desired_state() == v1::DESIRED_STATE_RUN) return job.uid();
  if (job.desired_state() != v1::DESIRED_STATE_PAUSE)
    return WrongState(job, "it is being cancelled");
  Wish(core, job.uid(), v1::DESIRED_STATE_RUN, "ResumeRequested");
  return job.uid();
}

absl::StatusOr<std::string> RetryJob(CoreContext& core, const std::string& name,
                                     const std::string& etag) {
  const JobRecord* found;
  SWITCHYARD_ASSIGN_OR_RETURN(found, FindJob(core, name, etag));
  const v1::Job& job = found->job();
  if (job.state() != v1::JOB_STATE_FAILED && job.state() != v1::JOB_STATE_CANCELLED) {
    return WrongState(job, "only a failed or cancelled job can be retried");
  }
  for (const auto& [key, record] : core.book.checkpoints(job.uid())) {
    if (record.checkpoint().final()) SWITCHYARD_RETURN_IF_ERROR(CheckIsNoResult(job, record));
  }
  const std::string& output = job.spec().checkpoint().output();
  SWITCHYARD_RETURN_IF_ERROR(CheckOutputIsFree(
      core, output, found->resolved_output().empty() ? output : found->resolved_output()));
  JobRecord& record = core.book.Edit(job.uid());
  record.clear_restarts();
  record.mutable_job()->set_desired_state(v1::DESIRED_STATE_RUN);
  core.book.live(job.uid()).not_before = core.clock.Steady();
  v1::StateReason reason;
  reason.set_code("WAITING_FOR_SLOTS");
  reason.set_message("retried with fresh restart budgets, waits for slots");
  core.book.Move(job.uid(), v1::JOB_STATE_QUEUED, reason, "JobRetried");
  return job.uid();
}

absl::StatusOr<std::string> DeleteJob(CoreContext& core, const std::string& name,
                                      const std::string& etag) {
  const JobRecord* record;
  SWITCHYARD_ASSIGN_OR_RETURN(record, FindJob(core, name, etag));
  const std::string uid = record->job().uid();
  Wish(core, uid, v1::DESIRED_STATE_DELETE, "DeleteRequested");
  return uid;
}

absl::Status RequestCheckpoint(CoreContext& core, const std::string& job_name) {
  const JobRecord* record;
  SWITCHYARD_ASSIGN_OR_RETURN(record, FindJob(core, job_name, ""));
  if (record->job().state() != v1::JOB_STATE_RUNNING) {
    return WrongState(record->job(), "only a running job can save a checkpoint");
  }
  core.book.live(record->job().uid()).checkpoint_requested = true;
  core.book.AddEvent(job_name, record->job().epoch(), "CheckpointRequested",
                     v1::EVENT_SEVERITY_INFO, "saves at the next step that all ranks agree on");
  core.book.Edit(record->job().uid());
  return absl::OkStatus();
}

absl::Status DeleteCheckpoint(CoreContext& core, const std::string& name) {
  const auto job_name = JobOfCheckpointName(name);
  if (!job_name) {
    return rpc::InvalidArgument(
        {{"name",
          absl::StrCat("is \"", name,
                       "\"; give \"projects/{project}/jobs/{job_id}/checkpoints/{step}\"")}});
  }
  const JobRecord* job;
  SWITCHYARD_ASSIGN_OR_RETURN(job, FindJob(core, *job_name, ""));
  const auto& records = core.book.checkpoints(job->job().uid());
  const auto it = records.find(name);
  if (it == records.end() || it->second.checkpoint().state() == v1::CHECKPOINT_STATE_DELETED) {
    return rpc::NotFound("switchyard.v1.Checkpoint", name);
  }
  store::v1::CheckpointRecord record = it->second;
  if (record.checkpoint().state() == v1::CHECKPOINT_STATE_COMMITTED) {
    return WrongState(job->job(), "the checkpoint is just being put in place");
  }
  if (job->has_launch() && job->launch().resume_from() == record.checkpoint().path()) {
    return WrongState(job->job(), "its attempt resumed from this checkpoint");
  }
  record.mutable_checkpoint()->set_state(v1::CHECKPOINT_STATE_DELETED);
  record.set_remove_pending(true);
  core.book.PutCheckpoint(record);
  core.book.AddEvent(*job_name, job->job().epoch(), "CheckpointRemoved", v1::EVENT_SEVERITY_INFO,
                     absl::StrCat(record.checkpoint().path(), ", on request"));
  core.book.Edit(job->job().uid());
  return absl::OkStatus();
}

absl::Status SetNode(CoreContext& core, const std::string& node, NodeWish wish) {
  NodeEntry* entry = core.nodes.FindMutable(node);
  if (entry == nullptr) return rpc::NotFound("switchyard.v1.Node", absl::StrCat("nodes/", node));
  entry->node.set_cordoned(wish != NodeWish::kUncordon);
  entry->node.set_draining(wish == NodeWish::kDrain ||
                           (wish == NodeWish::kCordon && entry->node.draining()));
  store::v1::NodeRecord record;
  *record.mutable_node() = entry->node;
  record.mutable_node()->clear_state();
  core.book.PutNode(record);
  core.book.AddEvent(entry->node.name(), 0,
                     wish == NodeWish::kDrain    ? "NodeDraining"
                     : wish == NodeWish::kCordon ? "NodeCordoned"
                                                 : "NodeUncordoned",
                     v1::EVENT_SEVERITY_INFO, "on request");
  return absl::OkStatus();
}

absl::Status DeleteNode(CoreContext& core, const std::string& node) {
  const std::string name = absl::StrCat("nodes/", node);
  const NodeEntry* entry = core.nodes.Find(node);
  if (entry == nullptr) return rpc::NotFound("switchyard.v1.Node", name);
  if (entry->connected()) {
    return rpc::Error(absl::StatusCode::kFailedPrecondition, "NODE_CONNECTED",
                      absl::StrCat(name,
                                   " is connected; stop its agent first, or take it out of "
                                   "use with DrainNode"));
  }
  for (const auto& [uid, record] : core.book.jobs()) {
    if (!record.has_launch()) continue;
    const std::vector<std::string> nodes = NodesOf(record);
    if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) continue;
    return rpc::Error(absl::StatusCode::kFailedPrecondition, "NODE_IN_USE",
                      absl::StrCat(name, " holds attempt ", record.job().epoch(), " of ",
                                   record.job().name(), "; wait until that is over"));
  }
  core.book.RemoveNode(name);
  return absl::OkStatus();
}

}  // namespace switchyard::coordinator
