#include "coordinator/service/job_service.h"

#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/rpc/violations.h"
#include "common/status_macros.h"
#include "coordinator/job/names.h"
#include "coordinator/job/proto_time.h"
#include "coordinator/service/job_commands.h"
#include "coordinator/service/job_filter.h"
#include "coordinator/service/rpc_trace.h"
#include "coordinator/service/tokens.h"
#include "coordinator/service/unary.h"
#include "coordinator/spec/output_directory.h"
#include "coordinator/spec/validate.h"

namespace switchyard::coordinator {
namespace {

constexpr int kMaxSamples = 10000;

// Paths that the service may not use, whether or not they exist.
void CheckPaths(const v1::JobSpec& spec, const security::PathPolicy& paths,
                std::vector<rpc::Violation>& violations) {
  const auto check = [&](const char* field, const security::AllowedPaths& allowed,
                         const std::string& path) {
    if (path.empty()) return;
    if (const absl::Status status = allowed.Check(path); !status.ok())
      violations.push_back({field, std::string(status.message())});
  };
  check("model", paths.models, spec.model());
  check("data.train", paths.data, spec.data().train());
  check("data.eval", paths.data, spec.data().eval());
  check("checkpoint.output", paths.outputs, spec.checkpoint().output());
}

// Everything that is wrong with the spec, and with what its paths lead to. A field whose text is
// wrong or that leads elsewhere is not looked up: its path is left out of what the planner
// inspects.
std::vector<rpc::Violation> CheckSpec(const v1::JobSpec& spec, JobPlanner& planner,
                                      const security::PathPolicy& paths) {
  std::vector<rpc::Violation> violations = ValidateSpec(spec);
  CheckPaths(spec, paths, violations);
  v1::JobSpec sound = spec;
  std::set<std::string> reported;
  for (const rpc::Violation& violation : violations) {
    reported.insert(violation.field);
    if (violation.field == "model") sound.clear_model();
    if (violation.field == "data.train") sound.mutable_data()->clear_train();
    if (violation.field == "data.eval") sound.mutable_data()->clear_eval();
    if (violation.field == "checkpoint.output") sound.mutable_checkpoint()->clear_output();
  }
  for (rpc::Violation& violation : planner.Inspect(sound)) {
    if (!reported.contains(violation.field)) violations.push_back(std::move(violation));
  }
  return violations;
}

absl::Status Check(const v1::CreateJobRequest& request, JobPlanner& planner,
                   const security::PathPolicy& paths) {
  std::vector<rpc::Violation> violations = CheckSpec(request.spec(), planner, paths);
  if (!request.job_id().empty() && !IsValidJobId(request.job_id())) {
    violations.push_back(
        {"job_id", absl::StrCat("is \"", request.job_id(),
                                "\"; use 1 to 63 of a-z, 0-9 and "
                                "\"-\", starting with a letter, not ending with \"-\"")});
  }
  if (!request.GetReflection()->GetUnknownFields(request).empty()) {
    const auto& unknown = request.GetReflection()->GetUnknownFields(request);
    violations.push_back(
        {"request", absl::StrCat("has a field with number ", unknown.field(0).number(),
                                 " that this coordinator does not know; remove it or "
                                 "upgrade the coordinator")});
  }
  return violations.empty() ? absl::OkStatus() : rpc::InvalidArgument(violations);
}

// On the writer thread, so that no two calls count the same room.
absl::Status CheckJobCount(const CoreContext& core, const v1::JobSpec& spec, int most) {
  const std::string project = spec.project().empty() ? "default" : spec.project();
  int live = 0;
  for (const auto& [uid, record] : core.book.jobs()) {
    const auto name = ParseJobName(record.job().name());
    live += !record.job().terminal() && name && name->project == project;
  }
  if (live < most) return absl::OkStatus();
  return rpc::Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_JOBS",
                    absl::StrCat("project \"", project, "\" has ", live,
                                 " jobs that have not ended, the most that one may; wait for some "
                                 "or cancel some (--max-jobs-per-project)"));
}

absl::Status Infeasible(const v1::Plan& plan) {
  std::string message =
      absl::StrCat("the job cannot run as specified:\n  ", absl::StrJoin(plan.problems(), "\n  "));
  if (!plan.nearest().empty()) {
    absl::StrAppend(&message, "\nnearest that fits:\n  ", absl::StrJoin(plan.nearest(), "\n  "));
  }
  return rpc::Error(absl::StatusCode::kFailedPrecondition, "PLAN_INFEASIBLE", message);
}

}  // namespace

absl::StatusOr<v1::Plan> JobServiceImpl::Plan(const v1::JobSpec& spec) const {
  if (parts_.allocator != nullptr) {
    return parts_.planner.Plan(spec, parts_.allocator->Offer(), std::nullopt);
  }
  std::vector<PlannerSlot> slots;
  for (const v1::Node& node : parts_.state.Nodes()) {
    // Cordoned nodes come back; lost ones may not.
    if (node.state() == v1::NODE_STATE_LOST) continue;
    for (const v1::Slot& slot : node.slots()) {
      slots.push_back({*ParseNodeName(node.name()), slot.index(), slot.device(), slot.product(),
                       slot.memory_bytes(), node.memory_domain(), node.cpu_cores(),
                       node.slots_size()});
    }
  }
  return parts_.planner.Plan(spec, slots, std::nullopt);
}

JobServiceImpl::Unary* JobServiceImpl::CreateJob(Context* context,
                                                 const v1::CreateJobRequest* request,
                                                 v1::Job* response) {
  // A repeated request gets its answer even when the job could not be created any more.
  const auto replay = FindReplay(parts_.store, *request);
  if (!replay.ok()) return Reply(context, replay.status());
  if (*replay) {
    *response = **replay;
    return Reply(context, absl::OkStatus());
  }
  if (absl::Status status = Check(*request, parts_.planner, parts_.paths); !status.ok())
    return Reply(context, status);
  absl::StatusOr<v1::Plan> plan = Plan(request->spec());
  if (!plan.ok()) return Reply(context, plan.status());
  if (!plan->feasible()) return Reply(context, Infeasible(*plan));
  auto answer = std::make_shared<v1::Job>();
  return OnWriter(
      context, parts_.loop,
      [request = *request, plan = *plan, answer, trace_id = TraceId(*context),
       resolved_output = ResolvedPath(request->spec().checkpoint().output()),
       most = parts_.max_jobs_per_project](Core& core) -> absl::StatusOr<std::string> {
        // Another call with the same id may have been faster.
        std::optional<v1::Job> stored;
        SWITCHYARD_ASSIGN_OR_RETURN(stored, FindReplay(core.context().book.store(), request));
        if (stored) {
          *answer = *stored;
          return std::string();
        }
        SWITCHYARD_RETURN_IF_ERROR(CheckJobCount(core.context(), request.spec(), most));
        if (request.validate_only()) {
          SWITCHYARD_ASSIGN_OR_RETURN(*answer,
                                      PreviewJob(core.context(), request, plan, resolved_output));
          return std::string();
        }
        std::string uid;
        SWITCHYARD_ASSIGN_OR_RETURN(
            uid, coordinator::CreateJob(core.context(), request, plan, resolved_output));
        core.context().book.Edit(uid).mutable_job()->set_trace_id(trace_id);
        return uid;
      },
      [answer, response](Core& core, const std::string& uid) {
        *response =
            uid.empty() ? *answer : core.context().book.View(*core.context().book.Find(uid));
      });
}

JobServiceImpl::Unary* JobServiceImpl::PlanJob(Context* context, const v1::PlanJobRequest* request,
                                               v1::PlanJobResponse* response) {
  const auto violations = CheckSpec(request->spec(), parts_.planner, parts_.paths);
  if (!violations.empty()) return Reply(context, rpc::InvalidArgument(violations));
  absl::StatusOr<v1::Plan> plan = Plan(request->spec());
  if (plan.ok()) *response->mutable_plan() = *std::move(plan);
  return Reply(context, plan.status());
}

absl::StatusOr<std::shared_ptr<const v1::Job>> JobServiceImpl::Find(const std::string& name) const {
  if (!ParseJobName(name)) {
    return rpc::InvalidArgument(
        {{"name", absl::StrCat("is \"", name, "\"; give \"projects/{project}/jobs/{job_id}\"")}});
  }
  auto job = parts_.state.FindJob(name);
  if (job == nullptr) return rpc::NotFound("switchyard.v1.Job", name);
  return job;
}

JobServiceImpl::Unary* JobServiceImpl::GetJob(Context* context, const v1::GetJobRequest* request,
                                              v1::Job* response) {
  const auto job = Find(request->name());
  if (job.ok()) *response = **job;
  return Reply(context, job.status());
}

absl::Status JobServiceImpl::List(const v1::ListJobsRequest& request,
                                  v1::ListJobsResponse& response) const {
  JobFilter filter;
  SWITCHYARD_ASSIGN_OR_RETURN(filter, JobFilter::Parse(request.parent(), request.filter(), false));
  int size;
  SWITCHYARD_ASSIGN_OR_RETURN(size, PageSize(request.page_size(), 50));
  // The last job of the page before, by what the list is ordered by.
  std::tuple<int64_t, int32_t, std::string> after{INT64_MIN, 0, ""};
  if (!request.page_token().empty()) {
    std::vector<std::string> fields;
    SWITCHYARD_ASSIGN_OR_RETURN(
        fields, ReadToken("jobs", filter.fingerprint(), request.page_token(), 3, "page_token"));
    if (!absl::SimpleAtoi(fields[0], &std::get<0>(after)) ||
        !absl::SimpleAtoi(fields[1], &std::get<1>(after))) {
      return rpc::InvalidArgument({{"page_token", "is damaged; pass it back unchanged"}});
    }
    std::get<2>(after) = fields[2];
  }
  for (const auto& job : parts_.state.Jobs()) {
    const std::tuple key{-job->create_time().seconds(), -job->create_time().nanos(), job->uid()};
    if (key <= after || !filter.Matches(*job)) continue;
    if (response.jobs_size() == size) {
      const v1::Job& last = response.jobs(size - 1);
      response.set_next_page_token(
          MakeToken("jobs", filter.fingerprint(),
                    {absl::StrCat(-last.create_time().seconds()),
                     absl::StrCat(-last.create_time().nanos()), last.uid()}));
      break;
    }
    *response.add_jobs() = *job;
  }
  return absl::OkStatus();
}

JobServiceImpl::Unary* JobServiceImpl::ListJobs(Context* context,
                                                const v1::ListJobsRequest* request,
                                                v1::ListJobsResponse* response) {
  return Reply(context, List(*request, *response));
}

JobServiceImpl::Unary* JobServiceImpl::Run(Context* context, Command command,
                                           const std::string& name, const std::string& etag,
                                           v1::Job* response) {
  return OnWriter(
      context, parts_.loop,
      [command, name, etag, trace_id = TraceId(*context)](Core& core) {
        absl::StatusOr<std::string> uid = command(core.context(), name, etag);
        const bool starts = command == coordinator::ResumeJob || command == coordinator::RetryJob;
        if (uid.ok() && starts)
          core.context().book.Edit(*uid).mutable_job()->set_trace_id(trace_id);
        return uid;
      },
      [response](Core& core, const std::string& uid) {
        *response = core.context().book.View(*core.context().book.Find(uid));
      });
}

JobServiceImpl::Unary* JobServiceImpl::CancelJob(Context* context,
                                                 const v1::CancelJobRequest* request,
                                                 v1::Job* response) {
  return Run(context, coordinator::CancelJob, request->name(), request->etag(), response);
}

JobServiceImpl::Unary* JobServiceImpl::PauseJob(Context* context,
                                                const v1::PauseJobRequest* request,
                                                v1::Job* response) {
  return Run(context, coordinator::PauseJob, request->name(), request->etag(), response);
}

JobServiceImpl::Unary* JobServiceImpl::ResumeJob(Context* context,
                                                 const v1::ResumeJobRequest* request,
                                                 v1::Job* response) {
  return Run(context, coordinator::ResumeJob, request->name(), request->etag(), response);
}

JobServiceImpl::Unary* JobServiceImpl::RetryJob(Context* context,
                                                const v1::RetryJobRequest* request,
                                                v1::Job* response) {
  return Run(context, coordinator::RetryJob, request->name(), request->etag(), response);
}

JobServiceImpl::Unary* JobServiceImpl::DeleteJob(Context* context,
                                                 const v1::DeleteJobRequest* request,
                                                 v1::DeleteJobResponse*) {
  return OnWriter(
      context, parts_.loop,
      [name = request->name(), etag = request->etag()](Core& core) {
        return coordinator::DeleteJob(core.context(), name, etag);
      },
      [](Core&, const std::string&) {});
}

absl::Status JobServiceImpl::Events(const v1::ListEventsRequest& request,
                                    v1::ListEventsResponse& response) const {
  if (!ParseNodeName(request.parent())) SWITCHYARD_RETURN_IF_ERROR(Find(request.parent()).status());
  int size;
  SWITCHYARD_ASSIGN_OR_RETURN(size, PageSize(request.page_size(), 200));
  int64_t after = 0;
  if (!request.page_token().empty()) {
    std::vector<std::string> fields;
    SWITCHYARD_ASSIGN_OR_RETURN(
        fields, ReadToken("events", request.parent(), request.page_token(), 1, "page_token"));
    if (!absl::SimpleAtoi(fields[0], &after)) {
      return rpc::InvalidArgument({{"page_token", "is damaged; pass it back unchanged"}});
    }
  }
  std::vector<v1::Event> events;
  SWITCHYARD_ASSIGN_OR_RETURN(events, parts_.store.ListEvents(request.parent(), after, size + 1));
  for (int i = 0; i < std::min<int>(size, static_cast<int>(events.size())); ++i) {
    *response.add_events() = events[i];
  }
  if (events.size() > static_cast<size_t>(size)) {
    response.set_next_page_token(
        MakeToken("events", request.parent(), {absl::StrCat(events[size - 1].sequence())}));
  }
  return absl::OkStatus();
}

JobServiceImpl::Unary* JobServiceImpl::ListEvents(Context* context,
                                                  const v1::ListEventsRequest* request,
                                                  v1::ListEventsResponse* response) {
  return Reply(context, Events(*request, *response));
}

JobServiceImpl::Unary* JobServiceImpl::GetExpertLoad(Context* context,
                                                     const v1::GetExpertLoadRequest* request,
                                                     v1::ExpertLoad* response) {
  const auto job = Find(request->name());
  if (!job.ok()) return Reply(context, job.status());
  const auto load = parts_.metrics.Load((*job)->uid());
  if (!load.ok()) return Reply(context, load.status());
  if (!*load) {
    return Reply(context,
                 rpc::Error(absl::StatusCode::kFailedPrecondition, "NO_EXPERT_LOAD",
                            absl::StrCat(request->name(), " has not reported an expert load yet")));
  }
  *response = **load;
  return Reply(context, absl::OkStatus());
}

absl::Status JobServiceImpl::Metrics(const v1::QueryMetricsRequest& request,
                                     v1::QueryMetricsResponse& response) const {
  std::shared_ptr<const v1::Job> job;
  SWITCHYARD_ASSIGN_OR_RETURN(job, Find(request.name()));
  if (request.max_samples() < 0) {
    return rpc::InvalidArgument(
        {{"max_samples", absl::StrCat("is ", request.max_samples(), "; must not be negative")}});
  }
  const int limit =
      request.max_samples() == 0 ? kMaxSamples : std::min(request.max_samples(), kMaxSamples);
  std::vector<v1::StepSample> samples;
  const double after_time = request.has_after_time() ? ToSeconds(request.after_time()) : -1;
  SWITCHYARD_ASSIGN_OR_RETURN(
      samples, parts_.metrics.Query(job->uid(), request.after_step(), after_time, limit));
  for (v1::StepSample& sample : samples) *response.add_samples() = std::move(sample);
  return absl::OkStatus();
}

JobServiceImpl::Unary* JobServiceImpl::QueryMetrics(Context* context,
                                                    const v1::QueryMetricsRequest* request,
                                                    v1::QueryMetricsResponse* response) {
  return Reply(context, Metrics(*request, *response));
}

}  // namespace switchyard::coordinator
