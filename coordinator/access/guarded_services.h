// The services as they are served: each method asks the gate, then the service that does the work.
//
// Only these are registered with the server. A method that is new in a proto and not here answers
// UNIMPLEMENTED, whatever the service behind can do: nothing is served unguarded by oversight.
#pragma once

#include "coordinator/access/access_gate.h"
#include "coordinator/access/token_service.h"
#include "coordinator/service/job_service.h"
#include "coordinator/service/resource_services.h"

namespace switchyard::coordinator {

class GuardedJobService final : public v1::JobService::CallbackService {
 public:
  GuardedJobService(AccessGate& gate, JobServiceImpl& service) : gate_(gate), service_(service) {}

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
  WatchHub::Reactor* WatchJobs(Context*, const v1::WatchJobsRequest*) override;
  LogHub::Reactor* StreamLogs(Context*, const v1::StreamLogsRequest*) override;

 private:
  AccessGate& gate_;
  JobServiceImpl& service_;
};

class GuardedCheckpointService final : public v1::CheckpointService::CallbackService {
 public:
  GuardedCheckpointService(AccessGate& gate, CheckpointServiceImpl& service)
      : gate_(gate), service_(service) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  Unary* ListCheckpoints(Context*, const v1::ListCheckpointsRequest*,
                         v1::ListCheckpointsResponse*) override;
  Unary* GetCheckpoint(Context*, const v1::GetCheckpointRequest*, v1::Checkpoint*) override;
  Unary* CreateCheckpoint(Context*, const v1::CreateCheckpointRequest*,
                          v1::CreateCheckpointResponse*) override;
  Unary* DeleteCheckpoint(Context*, const v1::DeleteCheckpointRequest*,
                          v1::DeleteCheckpointResponse*) override;

 private:
  AccessGate& gate_;
  CheckpointServiceImpl& service_;
};

class GuardedNodeService final : public v1::NodeService::CallbackService {
 public:
  GuardedNodeService(AccessGate& gate, NodeServiceImpl& service) : gate_(gate), service_(service) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  Unary* ListNodes(Context*, const v1::ListNodesRequest*, v1::ListNodesResponse*) override;
  Unary* GetNode(Context*, const v1::GetNodeRequest*, v1::Node*) override;
  Unary* CordonNode(Context*, const v1::CordonNodeRequest*, v1::Node*) override;
  Unary* UncordonNode(Context*, const v1::UncordonNodeRequest*, v1::Node*) override;
  Unary* DrainNode(Context*, const v1::DrainNodeRequest*, v1::Node*) override;
  Unary* DeleteNode(Context*, const v1::DeleteNodeRequest*, v1::DeleteNodeResponse*) override;

 private:
  AccessGate& gate_;
  NodeServiceImpl& service_;
};

class GuardedAccessService final : public v1::AccessService::CallbackService {
 public:
  GuardedAccessService(AccessGate& gate, TokenService& service) : gate_(gate), service_(service) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  Unary* CreateToken(Context*, const v1::CreateTokenRequest*, v1::CreateTokenResponse*) override;
  Unary* ListTokens(Context*, const v1::ListTokensRequest*, v1::ListTokensResponse*) override;
  Unary* RevokeToken(Context*, const v1::RevokeTokenRequest*, v1::Token*) override;
  Unary* GetCaller(Context*, const v1::GetCallerRequest*, v1::GetCallerResponse*) override;

 private:
  AccessGate& gate_;
  TokenService& service_;
};

}  // namespace switchyard::coordinator
