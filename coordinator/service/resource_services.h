// CheckpointService and NodeService over gRPC.
#pragma once

#include <functional>

#include "coordinator/service/core_loop.h"
#include "coordinator/service/published_state.h"
#include "coordinator/service/visibility.h"
#include "switchyard/v1/checkpoint.grpc.pb.h"
#include "switchyard/v1/node.grpc.pb.h"

namespace switchyard::coordinator {

class CheckpointServiceImpl final : public v1::CheckpointService::CallbackService {
 public:
  CheckpointServiceImpl(CoreLoop& loop, const PublishedState& state) : loop_(loop), state_(state) {}

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
  absl::Status List(const v1::ListCheckpointsRequest& request,
                    v1::ListCheckpointsResponse& response) const;

  CoreLoop& loop_;
  const PublishedState& state_;
};

class NodeServiceImpl final : public v1::NodeService::CallbackService {
 public:
  // `visibility` is asked once a call.
  NodeServiceImpl(CoreLoop& loop,
                  std::function<MaySee(const grpc::CallbackServerContext*)> visibility)
      : loop_(loop), visibility_(std::move(visibility)) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  Unary* ListNodes(Context*, const v1::ListNodesRequest*, v1::ListNodesResponse*) override;
  Unary* GetNode(Context*, const v1::GetNodeRequest*, v1::Node*) override;
  Unary* CordonNode(Context*, const v1::CordonNodeRequest*, v1::Node*) override;
  Unary* UncordonNode(Context*, const v1::UncordonNodeRequest*, v1::Node*) override;
  Unary* DrainNode(Context*, const v1::DrainNodeRequest*, v1::Node*) override;
  Unary* DeleteNode(Context*, const v1::DeleteNodeRequest*, v1::DeleteNodeResponse*) override;

 private:
  CoreLoop& loop_;
  const std::function<MaySee(const grpc::CallbackServerContext*)> visibility_;
};

}  // namespace switchyard::coordinator
