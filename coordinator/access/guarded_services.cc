#include "coordinator/access/guarded_services.h"

#include "coordinator/service/unary.h"

namespace switchyard::coordinator {
namespace {

using Context = grpc::CallbackServerContext;
using Unary = grpc::ServerUnaryReactor;

template <typename Service, typename Request, typename Response>
Unary* Forward(AccessGate& gate, Service& service,
               Unary* (Service::*method)(Context*, const Request*, Response*), Context* context,
               const Request* request, Response* response) {
  if (const absl::Status status = gate.Admit(context, *request); !status.ok())
    return Reply(context, status);
  return (service.*method)(context, request, response);
}

// A stream that is over before it begins.
template <typename Response>
class Refusal final : public grpc::ServerWriteReactor<Response> {
 public:
  explicit Refusal(const absl::Status& status) { this->Finish(rpc::ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

GuardedJobService::Unary* GuardedJobService::CreateJob(Context* context,
                                                       const v1::CreateJobRequest* request,
                                                       v1::Job* response) {
  return Forward(gate_, service_, &JobServiceImpl::CreateJob, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::PlanJob(Context* context,
                                                     const v1::PlanJobRequest* request,
                                                     v1::PlanJobResponse* response) {
  return Forward(gate_, service_, &JobServiceImpl::PlanJob, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::GetJob(Context* context,
                                                    const v1::GetJobRequest* request,
                                                    v1::Job* response) {
  return Forward(gate_, service_, &JobServiceImpl::GetJob, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::ListJobs(Context* context,
                                                      const v1::ListJobsRequest* request,
                                                      v1::ListJobsResponse* response) {
  return Forward(gate_, service_, &JobServiceImpl::ListJobs, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::CancelJob(Context* context,
                                                       const v1::CancelJobRequest* request,
                                                       v1::Job* response) {
  return Forward(gate_, service_, &JobServiceImpl::CancelJob, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::PauseJob(Context* context,
                                                      const v1::PauseJobRequest* request,
                                                      v1::Job* response) {
  return Forward(gate_, service_, &JobServiceImpl::PauseJob, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::ResumeJob(Context* context,
                                                       const v1::ResumeJobRequest* request,
                                                       v1::Job* response) {
  return Forward(gate_, service_, &JobServiceImpl::ResumeJob, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::RetryJob(Context* context,
                                                      const v1::RetryJobRequest* request,
                                                      v1::Job* response) {
  return Forward(gate_, service_, &JobServiceImpl::RetryJob, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::DeleteJob(Context* context,
                                                       const v1::DeleteJobRequest* request,
                                                       v1::DeleteJobResponse* response) {
  return Forward(gate_, service_, &JobServiceImpl::DeleteJob, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::ListEvents(Context* context,
                                                        const v1::ListEventsRequest* request,
                                                        v1::ListEventsResponse* response) {
  return Forward(gate_, service_, &JobServiceImpl::ListEvents, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::GetExpertLoad(Context* context,
                                                           const v1::GetExpertLoadRequest* request,
                                                           v1::ExpertLoad* response) {
  return Forward(gate_, service_, &JobServiceImpl::GetExpertLoad, context, request, response);
}

GuardedJobService::Unary* GuardedJobService::QueryMetrics(Context* context,
                                                          const v1::QueryMetricsRequest* request,
                                                          v1::QueryMetricsResponse* response) {
  return Forward(gate_, service_, &JobServiceImpl::QueryMetrics, context, request, response);
}

WatchHub::Reactor* GuardedJobService::WatchJobs(Context* context,
                                                const v1::WatchJobsRequest* request) {
  if (const absl::Status status = gate_.Admit(context, *request); !status.ok())
    return new Refusal<v1::WatchJobsResponse>(status);
  return service_.WatchJobs(context, request);
}

LogHub::Reactor* GuardedJobService::StreamLogs(Context* context,
                                               const v1::StreamLogsRequest* request) {
  if (const absl::Status status = gate_.Admit(context, *request); !status.ok())
    return new Refusal<v1::StreamLogsResponse>(status);
  return service_.StreamLogs(context, request);
}

GuardedCheckpointService::Unary* GuardedCheckpointService::ListCheckpoints(
    Context* context, const v1::ListCheckpointsRequest* request,
    v1::ListCheckpointsResponse* response) {
  return Forward(gate_, service_, &CheckpointServiceImpl::ListCheckpoints, context, request,
                 response);
}

GuardedCheckpointService::Unary* GuardedCheckpointService::GetCheckpoint(
    Context* context, const v1::GetCheckpointRequest* request, v1::Checkpoint* response) {
  return Forward(gate_, service_, &CheckpointServiceImpl::GetCheckpoint, context, request,
                 response);
}

GuardedCheckpointService::Unary* GuardedCheckpointService::CreateCheckpoint(
    Context* context, const v1::CreateCheckpointRequest* request,
    v1::CreateCheckpointResponse* response) {
  return Forward(gate_, service_, &CheckpointServiceImpl::CreateCheckpoint, context, request,
                 response);
}

GuardedCheckpointService::Unary* GuardedCheckpointService::DeleteCheckpoint(
    Context* context, const v1::DeleteCheckpointRequest* request,
    v1::DeleteCheckpointResponse* response) {
  return Forward(gate_, service_, &CheckpointServiceImpl::DeleteCheckpoint, context, request,
                 response);
}

GuardedNodeService::Unary* GuardedNodeService::ListNodes(Context* context,
                                                         const v1::ListNodesRequest* request,
                                                         v1::ListNodesResponse* response) {
  return Forward(gate_, service_, &NodeServiceImpl::ListNodes, context, request, response);
}

GuardedNodeService::Unary* GuardedNodeService::GetNode(Context* context,
                                                       const v1::GetNodeRequest* request,
                                                       v1::Node* response) {
  return Forward(gate_, service_, &NodeServiceImpl::GetNode, context, request, response);
}

GuardedNodeService::Unary* GuardedNodeService::CordonNode(Context* context,
                                                          const v1::CordonNodeRequest* request,
                                                          v1::Node* response) {
  return Forward(gate_, service_, &NodeServiceImpl::CordonNode, context, request, response);
}

GuardedNodeService::Unary* GuardedNodeService::UncordonNode(Context* context,
                                                            const v1::UncordonNodeRequest* request,
                                                            v1::Node* response) {
  return Forward(gate_, service_, &NodeServiceImpl::UncordonNode, context, request, response);
}

GuardedNodeService::Unary* GuardedNodeService::DrainNode(Context* context,
                                                         const v1::DrainNodeRequest* request,
                                                         v1::Node* response) {
  return Forward(gate_, service_, &NodeServiceImpl::DrainNode, context, request, response);
}

GuardedNodeService::Unary* GuardedNodeService::DeleteNode(Context* context,
                                                          const v1::DeleteNodeRequest* request,
                                                          v1::DeleteNodeResponse* response) {
  return Forward(gate_, service_, &NodeServiceImpl::DeleteNode, context, request, response);
}

GuardedAccessService::Unary* GuardedAccessService::CreateToken(
    Context* context, const v1::CreateTokenRequest* request, v1::CreateTokenResponse* response) {
  return Forward(gate_, service_, &TokenService::CreateToken, context, request, response);
}

GuardedAccessService::Unary* GuardedAccessService::ListTokens(Context* context,
                                                              const v1::ListTokensRequest* request,
                                                              v1::ListTokensResponse* response) {
  return Forward(gate_, service_, &TokenService::ListTokens, context, request, response);
}

GuardedAccessService::Unary* GuardedAccessService::RevokeToken(
    Context* context, const v1::RevokeTokenRequest* request, v1::Token* response) {
  return Forward(gate_, service_, &TokenService::RevokeToken, context, request, response);
}

GuardedAccessService::Unary* GuardedAccessService::GetCaller(Context* context,
                                                             const v1::GetCallerRequest* request,
                                                             v1::GetCallerResponse* response) {
  return Forward(gate_, service_, &TokenService::GetCaller, context, request, response);
}

}  // namespace switchyard::coordinator
