// JobService over gRPC: checks requests, hands changes to the writer thread, serves reads from what
// is published.
#pragma once

#include "common/security/allowed_paths.h"
#include "coordinator/history/metrics_store.h"
#include "coordinator/launch/job_planner.h"
#include "coordinator/launch/node_allocator.h"
#include "coordinator/service/core_loop.h"
#include "coordinator/service/log_hub.h"
#include "coordinator/service/published_state.h"
#include "coordinator/service/watch_hub.h"
#include "switchyard/v1/job_service.grpc.pb.h"

namespace switchyard::coordinator {

class JobServiceImpl final : public v1::JobService::CallbackService {
 public:
  struct Parts {
    CoreLoop& loop;
    JobStore& store;
    const PublishedState& state;
    JobPlanner& planner;
    MetricsStore& metrics;
    WatchHub& watches;
    LogHub& logs;
    const security::PathPolicy& paths;
    int max_jobs_per_project;  // that have not ended
    const NodeAllocator* allocator = nullptr;  // null: plans are for the nodes there are
  };

  explicit JobServiceImpl(const Parts& parts) : parts_(parts) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  Unary* CreateJob(Context*, const v1::CreateJobRequest*, v1::Job*) override;
  Unary* PlanJob(Context*, const v1::PlanJobRequest*, v1::PlanJobResponse*) override;
  Unary* GetJob(Context*, const v1::GetJobRequest*, v1::Job*) override;
  Unary* ListJobs(Context*, const v1::ListJobsRequest*, v1::ListJobsResponse*) override;
  Unary* CancelJob(Context*, const v1::CancelJobRequest*, v1::Job*) override;
  Unary* PauseJob(Context*, const v1::PauseJobRequest*, v1::Job*) override;
  Unary* ResumeJob(Context*, const v1::ResumeJobRequest*, v1::Job*) override;
  Unary* RetryJob(Context*, const v1::RetryJobRequest*, v1::Job*) override;
  Unary* DeleteJob(Context*, const v1::DeleteJobRequest*, v1::DeleteJobResponse*) override;
  Unary* ListEvents(Context*, const v1::ListEventsRequest*, v1::ListEventsResponse*) override;
  Unary* GetExpertLoad(Context*, const v1::GetExpertLoadRequest*, v1::ExpertLoad*) override;
  Unary* QueryMetrics(Context*, const v1::QueryMetricsRequest*, v1::QueryMetricsResponse*) override;
  WatchHub::Reactor* WatchJobs(Context*, const v1::WatchJobsRequest* request) override {
    return parts_.watches.Watch(*request);
  }
  LogHub::Reactor* StreamLogs(Context*, const v1::StreamLogsRequest* request) override {
    return parts_.logs.Stream(*request);
  }

 private:
  using Command = absl::StatusOr<std::string> (*)(CoreContext&, const std::string&,
                                                  const std::string&);

  Unary* Run(Context* context, Command command, const std::string& name, const std::string& etag,
             v1::Job* response);
  absl::StatusOr<v1::Plan> Plan(const v1::JobSpec& spec) const;
  absl::StatusOr<std::shared_ptr<const v1::Job>> Find(const std::string& name) const;
  absl::Status List(const v1::ListJobsRequest& request, v1::ListJobsResponse& response) const;
  absl::Status Events(const v1::ListEventsRequest& request, v1::ListEventsResponse& response) const;
  absl::Status Metrics(const v1::QueryMetricsRequest& request,
                       v1::QueryMetricsResponse& response) const;

  Parts parts_;
};

}  // namespace switchyard::coordinator
