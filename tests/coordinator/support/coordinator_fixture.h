// A real coordinator in this process, on a free port and a directory of its own, with a model to
// plan for.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "common/log.h"
#include "common/rpc/channel.h"
#include "coordinator/server.h"
#include "switchyard/v1/checkpoint.grpc.pb.h"
#include "switchyard/v1/job_service.grpc.pb.h"
#include "switchyard/v1/node.grpc.pb.h"

namespace switchyard::coordinator {

inline constexpr char kModelConfig[] =
    R"({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
  "decoder_sparse_step": 1, "head_dim": 8, "hidden_act": "silu", "hidden_size": 16, "intermediate_size": 32,
  "max_position_embeddings": 256, "mlp_only_layers": [], "moe_intermediate_size": 8, "norm_topk_prob": true,
  "num_attention_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2,
  "num_key_value_heads": 1, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "router_aux_loss_coef": 0.001,
  "tie_word_embeddings": true, "torch_dtype": "float32", "vocab_size": 64})";

class CoordinatorFixture : public testing::Test {
 protected:
  void SetUp() override {
    log::SetMinimumLevel(log::Level::kError);
    std::string pattern =
        (std::filesystem::temp_directory_path() / "switchyard-test.XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    std::filesystem::create_directory(root_ + "/model");
    std::ofstream(root_ + "/model/config.json") << kModelConfig;
    const std::string header = R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";
    std::ofstream(root_ + "/model/model.safetensors", std::ios::binary)
        << static_cast<char>(header.size()) << std::string(7, '\0') << header
        << std::string(16, '\0');
    std::ofstream(root_ + "/model/tokenizer.json") << "{}";
    std::ofstream(root_ + "/train.jsonl") << "{\"text\": \"a\"}\n";
    StartCoordinator();
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(root_);
  }

  void StartCoordinator() {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.state_dir = root_ + "/state";
    options.allocator = allocator_;
    auto http = http::Server::Bind({.address = "127.0.0.1:0"});
    ASSERT_TRUE(http.ok()) << http.status();
    options.http = *std::move(http);
    auto server = Server::Start(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = rpc::MakeChannel(server_->address());
    jobs_ = v1::JobService::NewStub(channel_);
    checkpoints_ = v1::CheckpointService::NewStub(channel_);
    nodes_ = v1::NodeService::NewStub(channel_);
  }

  v1::CreateJobRequest Request(const std::string& name, int ranks = 2) const {
    v1::CreateJobRequest request;
    v1::JobSpec& spec = *request.mutable_spec();
    spec.set_name(name);
    spec.set_model(root_ + "/model");
    spec.mutable_data()->set_train(root_ + "/train.jsonl");
    spec.mutable_data()->set_sequence_length(32);
    spec.mutable_training()->set_steps(5);
    spec.mutable_training()->set_global_batch_sequences(8);
    spec.mutable_mesh()->set_device("cpu");
    spec.mutable_mesh()->set_ranks(ranks);
    spec.mutable_mesh()->set_expert_parallel(1);
    spec.mutable_checkpoint()->set_output(root_ + "/out/" + name);
    spec.mutable_checkpoint()->set_interval_steps(2);
    return request;
  }

  // Creates a job that must be accepted.
  v1::Job Create(const v1::CreateJobRequest& request) {
    grpc::ClientContext context;
    v1::Job job;
    const grpc::Status status = jobs_->CreateJob(&context, request, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job;
  }
  v1::Job Get(const std::string& name) {
    grpc::ClientContext context;
    v1::GetJobRequest request;
    request.set_name(name);
    v1::Job job;
    (void)jobs_->GetJob(&context, request, &job);
    return job;
  }
  static bool Wait(const std::function<bool()>& condition, int seconds = 20) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (std::chrono::steady_clock::now() < end) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return condition();
  }
  bool WaitForState(const std::string& name, v1::JobState state, int seconds = 20) {
    const bool reached = Wait([&] { return Get(name).state() == state; }, seconds);
    if (!reached) ADD_FAILURE() << Get(name).DebugString();
    return reached;
  }
  bool WaitForNodes(int count) {
    return Wait([&] {
      grpc::ClientContext context;
      v1::ListNodesResponse response;
      (void)nodes_->ListNodes(&context, {}, &response);
      int ready = 0;
      for (const auto& node : response.nodes()) ready += node.state() == v1::NODE_STATE_READY;
      return ready == count;
    });
  }

  std::string root_;
  NodeAllocator* allocator_ = nullptr;  // of coordinators that are started from now on
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::CheckpointService::Stub> checkpoints_;
  std::unique_ptr<v1::NodeService::Stub> nodes_;
};

}  // namespace switchyard::coordinator
