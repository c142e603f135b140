// A real gRPC server on loopback whose services answer from what a test sets; it can be stopped and
// started again on the same port, as a coordinator that restarts.
#pragma once

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "switchyard/v1/checkpoint.grpc.pb.h"
#include "switchyard/v1/job_service.grpc.pb.h"
#include "switchyard/v1/node.grpc.pb.h"

namespace switchyard::coordinator {

class FakeJobs final : public v1::JobService::Service {
 public:
  using Context = grpc::ServerContext;
  // What the stream of a watch does; returns the stream's status.
  using WatchScript = std::function<grpc::Status(Context*, const v1::WatchJobsRequest&,
                                                 grpc::ServerWriter<v1::WatchJobsResponse>*)>;

  v1::Job job;
  v1::Plan plan;
  absl::Status error;  // when set, every unary call answers it
  int refusals = 0;    // so many CreateJob calls answer UNAVAILABLE first
  std::vector<v1::CreateJobRequest> creates;
  std::vector<std::string> actions;  // "CancelJob projects/..."
  std::vector<v1::WatchJobsRequest> watches;
  std::vector<v1::StreamLogsRequest> log_requests;
  std::vector<WatchScript>
      scripts;  // one a watch call, in order; the last one for all further ones
  std::vector<v1::StreamLogsResponse> logs;
  std::vector<v1::Event> events;
  std::vector<v1::StepSample> samples;
  v1::ExpertLoad load;
  int jobs_in_list = 1;
  std::string last_filter;
  std::string last_parent;

  grpc::Status CreateJob(Context*, const v1::CreateJobRequest* request,
                         v1::Job* response) override {
    creates.push_back(*request);
    if (refusals-- > 0) return {grpc::StatusCode::UNAVAILABLE, "restarting"};
    return Answer(job, response);
  }
  grpc::Status PlanJob(Context*, const v1::PlanJobRequest*,
                       v1::PlanJobResponse* response) override {
    v1::PlanJobResponse answer;
    *answer.mutable_plan() = plan;
    return Answer(answer, response);
  }
  grpc::Status GetJob(Context*, const v1::GetJobRequest* request, v1::Job* response) override {
    if (request->name() != job.name())
      return rpc::ToGrpcStatus(rpc::NotFound("job", request->name()));
    return Answer(job, response);
  }
  grpc::Status ListJobs(Context*, const v1::ListJobsRequest* request,
                        v1::ListJobsResponse* response) override {
    last_filter = request->filter();
    last_parent = request->parent();
    if (!error.ok()) return rpc::ToGrpcStatus(error);
    // Pages of two.
    const int begin = request->page_token().empty() ? 0 : std::stoi(request->page_token());
    for (int i = begin; i < std::min(begin + 2, jobs_in_list); ++i) {
      v1::Job& entry = *response->add_jobs();
      entry = job;
      entry.set_name(absl::StrCat(job.name(), i == 0 ? "" : absl::StrCat("-", i)));
    }
    if (begin + 2 < jobs_in_list) response->set_next_page_token(absl::StrCat(begin + 2));
    return grpc::Status::OK;
  }
  grpc::Status CancelJob(Context*, const v1::CancelJobRequest* request,
                         v1::Job* response) override {
    actions.push_back("CancelJob " + request->name());
    return Answer(job, response);
  }
  grpc::Status PauseJob(Context*, const v1::PauseJobRequest* request, v1::Job* response) override {
    actions.push_back("PauseJob " + request->name());
    return Answer(job, response);
  }
  grpc::Status ResumeJob(Context*, const v1::ResumeJobRequest* request,
                         v1::Job* response) override {
    actions.push_back("ResumeJob " + request->name());
    return Answer(job, response);
  }
  grpc::Status RetryJob(Context*, const v1::RetryJobRequest* request, v1::Job* response) override {
    actions.push_back("RetryJob " + request->name());
    return Answer(job, response);
  }
  grpc::Status DeleteJob(Context*, const v1::DeleteJobRequest* request,
                         v1::DeleteJobResponse* response) override {
    actions.push_back("DeleteJob " + request->name());
    return Answer(v1::DeleteJobResponse(), response);
  }
  grpc::Status WatchJobs(Context* context, const v1::WatchJobsRequest* request,
                         grpc::ServerWriter<v1::WatchJobsResponse>* writer) override {
    watches.push_back(*request);
    if (scripts.empty()) return {grpc::StatusCode::NOT_FOUND, "no such job"};
    return scripts[std::min(watches.size(), scripts.size()) - 1](context, *request, writer);
  }
  grpc::Status StreamLogs(Context*, const v1::StreamLogsRequest* request,
                          grpc::ServerWriter<v1::StreamLogsResponse>* writer) override {
    log_requests.push_back(*request);
    for (const auto& chunk : logs) writer->Write(chunk);
    // The first stream of a follower breaks, the next one ends.
    if (request->follow() && log_requests.size() == 1)
      return {grpc::StatusCode::UNAVAILABLE, "gone"};
    return grpc::Status::OK;
  }
  grpc::Status ListEvents(Context*, const v1::ListEventsRequest*,
                          v1::ListEventsResponse* response) override {
    v1::ListEventsResponse answer;
    answer.mutable_events()->Assign(events.begin(), events.end());
    return Answer(answer, response);
  }
  grpc::Status GetExpertLoad(Context*, const v1::GetExpertLoadRequest*,
                             v1::ExpertLoad* response) override {
    return Answer(load, response);
  }
  grpc::Status QueryMetrics(Context*, const v1::QueryMetricsRequest*,
                            v1::QueryMetricsResponse* response) override {
    v1::QueryMetricsResponse answer;
    answer.mutable_samples()->Assign(samples.begin(), samples.end());
    return Answer(answer, response);
  }

 private:
  template <typename Message>
  grpc::Status Answer(const Message& answer, Message* response) const {
    if (!error.ok()) return rpc::ToGrpcStatus(error);
    *response = answer;
    return grpc::Status::OK;
  }
};

class FakeNodes final : public v1::NodeService::Service {
 public:
  v1::Node node;
  bool beating = false;  // the node is heard of all the time
  std::vector<std::string> actions;

  grpc::Status ListNodes(grpc::ServerContext*, const v1::ListNodesRequest*,
                         v1::ListNodesResponse* response) override {
    if (node.name().empty()) return grpc::Status::OK;
    v1::Node& copy = *response->add_nodes();
    copy = node;
    if (beating)
      copy.mutable_last_heartbeat_time()->set_seconds(absl::ToUnixSeconds(absl::Now()) + 1);
    return grpc::Status::OK;
  }
  grpc::Status CordonNode(grpc::ServerContext*, const v1::CordonNodeRequest* request,
                          v1::Node* response) override {
    actions.push_back("CordonNode " + request->name());
    *response = node;
    response->set_cordoned(true);
    return grpc::Status::OK;
  }
  grpc::Status UncordonNode(grpc::ServerContext*, const v1::UncordonNodeRequest* request,
                            v1::Node* response) override {
    actions.push_back("UncordonNode " + request->name());
    *response = node;
    return grpc::Status::OK;
  }
  grpc::Status DrainNode(grpc::ServerContext*, const v1::DrainNodeRequest* request,
                         v1::Node* response) override {
    actions.push_back("DrainNode " + request->name());
    *response = node;
    response->set_draining(true);
    return grpc::Status::OK;
  }
  grpc::Status DeleteNode(grpc::ServerContext*, const v1::DeleteNodeRequest* request,
                          v1::DeleteNodeResponse*) override {
    actions.push_back("DeleteNode " + request->name());
    return grpc::Status::OK;
  }
};

class FakeCheckpoints final : public v1::CheckpointService::Service {
 public:
  std::vector<v1::Checkpoint> checkpoints;
  std::vector<std::string> saves;

  grpc::Status ListCheckpoints(grpc::ServerContext*, const v1::ListCheckpointsRequest*,
                               v1::ListCheckpointsResponse* response) override {
    response->mutable_checkpoints()->Assign(checkpoints.begin(), checkpoints.end());
    return grpc::Status::OK;
  }
  grpc::Status CreateCheckpoint(grpc::ServerContext*, const v1::CreateCheckpointRequest* request,
                                v1::CreateCheckpointResponse*) override {
    saves.push_back(request->parent());
    return grpc::Status::OK;
  }
};

class FakeCoordinator {
 public:
  FakeCoordinator() { Start(); }
  ~FakeCoordinator() { Stop(); }

  void Start(int port = 0) {
    grpc::ServerBuilder builder;
    rpc::ConfigureServer(builder);
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(&jobs);
    builder.RegisterService(&nodes);
    builder.RegisterService(&checkpoints);
    server_ = builder.BuildAndStart();
  }
  void Stop() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_ = nullptr;
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  int port() const { return port_; }
  bool running() const { return server_ != nullptr && port_ != 0; }

  FakeJobs jobs;
  FakeNodes nodes;
  FakeCheckpoints checkpoints;

 private:
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace switchyard::coordinator
