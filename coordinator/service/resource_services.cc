#include "coordinator/service/resource_services.h"

#include "absl/strings/str_cat.h"
#include "common/rpc/violations.h"
#include "common/status_macros.h"
#include "coordinator/job/names.h"
#include "coordinator/service/job_commands.h"
#include "coordinator/service/tokens.h"
#include "coordinator/service/unary.h"

namespace switchyard::coordinator {
namespace {

absl::StatusOr<std::string> BareName(const std::string& name) {
  const auto node = ParseNodeName(name);
  if (!node)
    return rpc::InvalidArgument(
        {{"name", absl::StrCat("is \"", name, "\"; give \"nodes/{node}\"")}});
  return *node;
}

NodeServiceImpl::Unary* ChangeNode(NodeServiceImpl::Context* context, CoreLoop& loop,
                                   const std::string& name, NodeWish wish, v1::Node* response) {
  return OnWriter(
      context, loop,
      [name, wish](Core& core) -> absl::StatusOr<std::string> {
        std::string node;
        SWITCHYARD_ASSIGN_OR_RETURN(node, BareName(name));
        SWITCHYARD_RETURN_IF_ERROR(SetNode(core.context(), node, wish));
        return node;
      },
      [response](Core& core, const std::string& node) { *response = core.NodeView(node); });
}

}  // namespace

absl::Status CheckpointServiceImpl::List(const v1::ListCheckpointsRequest& request,
                                         v1::ListCheckpointsResponse& response) const {
  const auto job = state_.FindJob(request.parent());
  if (job == nullptr) return rpc::NotFound("switchyard.v1.Job", request.parent());
  int size;
  SWITCHYARD_ASSIGN_OR_RETURN(size, PageSize(request.page_size(), 50));
  bool begun = request.page_token().empty();
  std::string after;
  if (!begun) {
    std::vector<std::string> fields;
    SWITCHYARD_ASSIGN_OR_RETURN(
        fields, ReadToken("checkpoints", request.parent(), request.page_token(), 1, "page_token"));
    after = fields[0];
  }
  for (const v1::Checkpoint& checkpoint : state_.Checkpoints(job->uid())) {
    if (begun && response.checkpoints_size() == size) {
      response.set_next_page_token(
          MakeToken("checkpoints", request.parent(), {response.checkpoints(size - 1).name()}));
      break;
    }
    if (begun) *response.add_checkpoints() = checkpoint;
    begun = begun || checkpoint.name() == after;
  }
  return absl::OkStatus();
}

CheckpointServiceImpl::Unary* CheckpointServiceImpl::ListCheckpoints(
    Context* context, const v1::ListCheckpointsRequest* request,
    v1::ListCheckpointsResponse* response) {
  return Reply(context, List(*request, *response));
}

CheckpointServiceImpl::Unary* CheckpointServiceImpl::GetCheckpoint(
    Context* context, const v1::GetCheckpointRequest* request, v1::Checkpoint* response) {
  const auto job_name = JobOfCheckpointName(request->name());
  if (!job_name) {
    return Reply(
        context,
        rpc::InvalidArgument(
            {{"name",
              absl::StrCat("is \"", request->name(),
                           "\"; give \"projects/{project}/jobs/{job_id}/checkpoints/{step}\"")}}));
  }
  if (const auto job = state_.FindJob(*job_name)) {
    for (const v1::Checkpoint& checkpoint : state_.Checkpoints(job->uid())) {
      if (checkpoint.name() != request->name()) continue;
      *response = checkpoint;
      return Reply(context, absl::OkStatus());
    }
  }
  return Reply(context, rpc::NotFound("switchyard.v1.Checkpoint", request->name()));
}

CheckpointServiceImpl::Unary* CheckpointServiceImpl::CreateCheckpoint(
    Context* context, const v1::CreateCheckpointRequest* request, v1::CreateCheckpointResponse*) {
  return OnWriter(
      context, loop_,
      [parent = request->parent()](Core& core) -> absl::StatusOr<std::string> {
        SWITCHYARD_RETURN_IF_ERROR(RequestCheckpoint(core.context(), parent));
        return parent;
      },
      [](Core&, const std::string&) {});
}

CheckpointServiceImpl::Unary* CheckpointServiceImpl::DeleteCheckpoint(
    Context* context, const v1::DeleteCheckpointRequest* request, v1::DeleteCheckpointResponse*) {
  return OnWriter(
      context, loop_,
      [name = request->name()](Core& core) -> absl::StatusOr<std::string> {
        SWITCHYARD_RETURN_IF_ERROR(coordinator::DeleteCheckpoint(core.context(), name));
        return name;
      },
      [](Core&, const std::string&) {});
}

NodeServiceImpl::Unary* NodeServiceImpl::ListNodes(Context* context,
                                                   const v1::ListNodesRequest* request,
                                                   v1::ListNodesResponse* response) {
  const auto size = PageSize(request->page_size(), 50);
  if (!size.ok()) return Reply(context, size.status());
  std::string after;
  if (!request->page_token().empty()) {
    const auto fields = ReadToken("nodes", "", request->page_token(), 1, "page_token");
    if (!fields.ok()) return Reply(context, fields.status());
    after = fields->front();
  }
  return OnWriter(
      context, loop_, [](Core&) -> absl::StatusOr<std::string> { return std::string(); },
      [size = *size, after, response, may_see = visibility_(context)](Core& core,
                                                                      const std::string&) {
        for (const auto& [name, entry] : core.context().nodes.nodes()) {
          if (name <= after) continue;
          if (response->nodes_size() == size) {
            response->set_next_page_token(
                MakeToken("nodes", "", {*ParseNodeName(response->nodes(size - 1).name())}));
            break;
          }
          *response->add_nodes() = VisibleNode(core.NodeView(name), may_see);
        }
      });
}

NodeServiceImpl::Unary* NodeServiceImpl::GetNode(Context* context,
                                                 const v1::GetNodeRequest* request,
                                                 v1::Node* response) {
  return OnWriter(
      context, loop_,
      [name = request->name()](Core& core) -> absl::StatusOr<std::string> {
        std::string node;
        SWITCHYARD_ASSIGN_OR_RETURN(node, BareName(name));
        if (core.context().nodes.Find(node) == nullptr)
          return rpc::NotFound("switchyard.v1.Node", name);
        return node;
      },
      [response, may_see = visibility_(context)](Core& core, const std::string& node) {
        *response = VisibleNode(core.NodeView(node), may_see);
      });
}

NodeServiceImpl::Unary* NodeServiceImpl::CordonNode(Context* context,
                                                    const v1::CordonNodeRequest* request,
                                                    v1::Node* response) {
  return ChangeNode(context, loop_, request->name(), NodeWish::kCordon, response);
}

NodeServiceImpl::Unary* NodeServiceImpl::UncordonNode(Context* context,
                                                      const v1::UncordonNodeRequest* request,
                                                      v1::Node* response) {
  return ChangeNode(context, loop_, request->name(), NodeWish::kUncordon, response);
}

NodeServiceImpl::Unary* NodeServiceImpl::DrainNode(Context* context,
                                                   const v1::DrainNodeRequest* request,
                                                   v1::Node* response) {
  return ChangeNode(context, loop_, request->name(), NodeWish::kDrain, response);
}

NodeServiceImpl::Unary* NodeServiceImpl::DeleteNode(Context* context,
                                                    const v1::DeleteNodeRequest* request,
                                                    v1::DeleteNodeResponse*) {
  return OnWriter(
      context, loop_,
      [name = request->name()](Core& core) -> absl::StatusOr<std::string> {
        std::string node;
        SWITCHYARD_ASSIGN_OR_RETURN(node, BareName(name));
        SWITCHYARD_RETURN_IF_ERROR(coordinator::DeleteNode(core.context(), node));
        return node;
      },
      [](Core&, const std::string&) {});
}

}  // namespace switchyard::coordinator
