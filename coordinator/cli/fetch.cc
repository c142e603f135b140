#include "coordinator/cli/fetch.h"

#include "common/status_macros.h"

namespace switchyard::coordinator {
namespace {

// Calls until there is no next page; `merge` adds one page to the whole.
template <typename Stub, typename Request, typename Response, typename Merge>
absl::StatusOr<Response> AllPages(const ApiClient& client,
                                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                               Response*),
                                  Stub& stub, Request request, Merge merge) {
  request.set_page_size(1000);
  Response all;
  do {
    SWITCHYARD_ASSIGN_OR_RETURN(const Response page, client.Call(method, stub, request));
    merge(all, page);
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return all;
}

}  // namespace

absl::StatusOr<v1::ListEventsResponse> FetchEvents(const ApiClient& client,
                                                   const std::string& job) {
  v1::ListEventsRequest request;
  request.set_parent(job);
  return AllPages(client, &v1::JobService::Stub::ListEvents, client.jobs(), request,
                  [](v1::ListEventsResponse& all, const v1::ListEventsResponse& page) {
                    all.mutable_events()->MergeFrom(page.events());
                  });
}

absl::StatusOr<v1::ListCheckpointsResponse> FetchCheckpoints(const ApiClient& client,
                                                             const std::string& job) {
  v1::ListCheckpointsRequest request;
  request.set_parent(job);
  return AllPages(client, &v1::CheckpointService::Stub::ListCheckpoints, client.checkpoints(),
                  request,
                  [](v1::ListCheckpointsResponse& all, const v1::ListCheckpointsResponse& page) {
                    all.mutable_checkpoints()->MergeFrom(page.checkpoints());
                  });
}

absl::StatusOr<v1::ListNodesResponse> FetchNodes(const ApiClient& client) {
  return AllPages(client, &v1::NodeService::Stub::ListNodes, client.nodes(), v1::ListNodesRequest(),
                  [](v1::ListNodesResponse& all, const v1::ListNodesResponse& page) {
                    all.mutable_nodes()->MergeFrom(page.nodes());
                  });
}

}  // namespace switchyard::coordinator
