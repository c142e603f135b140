#include "worker/trainer/optim/sharded_optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/model/model_shape.h"
#include "tests/trainer/support/multi_process.h"
#include "worker/trainer/comm/mesh_groups.h"

namespace switchyard::trainer {
namespace {

ModelShape SmallShape() {
  return *ParseModelConfig(R"({"model_type": "qwen3_moe", "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 37, "intermediate_size": 24,
    "moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": true,
    "router_aux_loss_coef": 0.001, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 64,
    "hidden_act": "silu", "tie_word_embeddings": false, "decoder_sparse_step": 1, "mlp_only_layers": []})");
}

// The whole tensor as a model on one rank holds it, `stage` telling values from gradients.
at::Tensor Whole(const std::string& name, std::vector<int64_t> shape, const Mesh& mesh,
                 ParameterKind kind, int stage) {
  if (kind == ParameterKind::kExpert) shape[0] *= mesh.expert_parallel();
  int64_t numel = 1;
  for (int64_t size : shape) numel *= size;
  const double phase = static_cast<double>(std::hash<std::string>()(name) % 1000) + 17.0 * stage;
  return ((at::arange(numel, at::kDouble) + phase) * 0.7).sin().view(shape).to(at::kFloat);
}

// What this rank holds of it.
at::Tensor Part(const at::Tensor& whole, const Parameter& p, const Mesh& mesh, int rank) {
  if (p.kind == ParameterKind::kReplicated) return whole;
  return whole.narrow(0, mesh.first_expert(rank), mesh.experts_per_rank());
}

struct Outcome {
  double norm = 0;
  at::Tensor values;
};

// `steps` optimizer steps on one rank of a mesh; each rank contributes another share of every
// gradient.
class Training {
 public:
  Training(const Mesh& mesh, int rank, MeshCommunicators& communicators, at::ScalarType type)
      : mesh_(mesh),
        rank_(rank),
        communicators_(communicators),
        registry_(SmallShape(), mesh, rank) {
    registry_.BindValues(at::zeros({registry_.total_numel()}, at::TensorOptions().dtype(type)));
    for (size_t p = 0; p < registry_.parameters().size(); ++p) {
      const Parameter& parameter = registry_.parameters()[p];
      const at::Tensor whole = Whole(parameter.name, parameter.shape, mesh, parameter.kind, 0);
      registry_.Value(static_cast<int>(p)).copy_(Part(whole, parameter, mesh, rank) * 0.02);
    }
    optimizer_ = std::make_unique<ShardedOptimizer>(
        registry_, communicators_, ShardedOptimizerOptions{{0.9, 0.95, 1e-8, 0.1}});
    gradients_ = at::zeros({registry_.total_numel()}, at::kFloat);
  }

  double Step(int stage) {
    for (const Parameter& p : registry_.parameters()) {
      const ParameterBlock& block = registry_.blocks()[p.block];
      // Shares of the ranks that hold the parameter add up to one.
      const int members = static_cast<int>(block.shards);
      const int member = registry_.shard_index(block);
      const double share = (member + 1.0) / (members * (members + 1) / 2.0);
      const at::Tensor whole = Whole(p.name, p.shape, mesh_, p.kind, stage);
      gradients_.narrow(0, block.offset + p.offset, p.numel)
          .copy_((Part(whole, p, mesh_, rank_) * share).reshape({-1}));
    }
    const at::Tensor squares = optimizer_->ReduceGradients(Gradients());
    communicators_.world->AllReduce(squares);
    optimizer_->Update(Gradients(), 1e-2, 1.0, squares, at::zeros({1}, at::kDouble));
    return std::sqrt(squares.item<double>());
  }

  BlockGradients Gradients() {
    return [this](int block) {
      const ParameterBlock& b = registry_.blocks()[block];
      return gradients_.narrow(0, b.offset, b.numel);
    };
  }
  ParameterRegistry& registry() { return registry_; }
  ShardedOptimizer& optimizer() { return *optimizer_; }
  at::Tensor gradients() { return gradients_; }

 private:
  Mesh mesh_;
  int rank_;
  MeshCommunicators& communicators_;
  ParameterRegistry registry_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
  at::Tensor gradients_;
};

void OnMesh(int ranks, int ep,
            const std::function<void(const Mesh&, int rank, MeshCommunicators&)>& body) {
  const std::string job_uid = UniqueName("optim");
  const std::string token = NewRendezvousToken();
  RunRanks(ranks, [&](int rank) {
    const Mesh mesh = *Mesh::Create(ranks, ep, 4);
    MeshGroups groups = JoinMeshGroups(mesh, {job_uid, 1, token, rank, 0});
    body(mesh, rank, groups.communicators);
  });
}

double RelativeError(const at::Tensor& a, const at::Tensor& b) {
  return (at::linalg_vector_norm(a - b) / at::linalg_vector_norm(b)).item<double>();
}

class MeshesTest : public ::testing::TestWithParam<std::pair<int, int>> {};

// Over-counting the norm by sqrt(ep), or clipping by one rank's norm, would show here.
TEST_P(MeshesTest, ShardedStepsEqualStepsOnOneRankAndTheNormCountsEveryElementOnce) {
  OnMesh(GetParam().first, GetParam().second,
         [](const Mesh& mesh, int rank, MeshCommunicators& groups) {
           MeshCommunicators alone = JoinMeshGroups(*Mesh::Create(1, 1, 4), {}).communicators;
           Training reference(*Mesh::Create(1, 1, 4), 0, alone, at::kFloat);
           Training training(mesh, rank, groups, at::kFloat);
           for (int step = 1; step <= 3; ++step) {
             double expected = 0;
             for (const Parameter& p : reference.registry().parameters()) {
               const at::Tensor whole =
                   Whole(p.name, p.shape, *Mesh::Create(1, 1, 4), p.kind, step).to(at::kDouble);
               expected += (whole * whole).sum().item<double>();
             }
             EXPECT_NEAR(training.Step(step), std::sqrt(expected), 1e-5 * std::sqrt(expected));
             EXPECT_NEAR(reference.Step(step), std::sqrt(expected), 1e-5 * std::sqrt(expected));
           }
           for (size_t i = 0; i < training.registry().parameters().size(); ++i) {
             const Parameter& p = training.registry().parameters()[i];
             const at::Tensor whole = reference.registry().Value(reference.registry().Find(p.name));
             EXPECT_LT(RelativeError(training.registry().Value(static_cast<int>(i)),
                                     Part(whole, p, mesh, rank)),
                       1e-5)
                 << p.name;
           }
         });
}

TEST_P(MeshesTest, RepeatsToTheBit) {
  OnMesh(GetParam().first, GetParam().second,
         [](const Mesh& mesh, int rank, MeshCommunicators& groups) {
           for (at::ScalarType type : {at::kFloat, at::kBFloat16}) {
             Training first(mesh, rank, groups, type), second(mesh, rank, groups, type);
             for (int step = 1; step <= 3; ++step) {
               EXPECT_EQ(first.Step(step), second.Step(step));
             }
             EXPECT_TRUE(at::equal(first.registry().values(), second.registry().values()));
           }
         });
}

TEST_P(MeshesTest, ANonFiniteGradientOfOneRankIsSeenByAllAndNamed) {
  OnMesh(
      GetParam().first, GetParam().second,
      [](const Mesh& mesh, int rank, MeshCommunicators& groups) {
        Training training(mesh, rank, groups, at::kFloat);
        const std::string name = "model.layers.1.mlp.gate.weight";
        const Parameter& p = training.registry().parameters()[training.registry().Find(name)];
        if (rank == mesh.world_size() - 1) {
          training.gradients()[training.registry().blocks()[p.block].offset + p.offset + 3].fill_(
              std::numeric_limits<double>::quiet_NaN());
        }
        const at::Tensor squares = training.optimizer().ReduceGradients(training.Gradients());
        groups.world->AllReduce(squares);
        EXPECT_FALSE(std::isfinite(squares.item<double>()));
        const at::Tensor before = training.registry().values().clone();
        const int64_t update = training.optimizer().Update(training.Gradients(), 1.0, 1.0, squares,
                                                           at::zeros({1}, at::kDouble));
        EXPECT_TRUE(training.registry().values().equal(before));
        EXPECT_EQ(training.optimizer().CurrentState().adam_step, 0);
        EXPECT_EQ(training.optimizer().NonFiniteParameters(update, training.Gradients()),
                  std::vector<std::string>{name});
      });
}

// Each rank's rows differ; ids occur on several ranks, and one is skipped.
TEST_P(MeshesTest, TheEmbeddingsRowsGatheredGiveTheTableThatIsReduced) {
  OnMesh(GetParam().first, GetParam().second,
         [](const Mesh& mesh, int rank, MeshCommunicators& groups) {
           constexpr int64_t kTokens = 24, kVocab = 37, kWidth = 16, kSkipped = 5;
           Training whole(mesh, rank, groups, at::kFloat), rows(mesh, rank, groups, at::kFloat);
           const at::Tensor t = at::arange(kTokens, at::kLong);
           const at::Tensor id = (t * (7 + rank)).remainder(kVocab);
           const at::Tensor grad =
               (at::arange(kTokens * kWidth, at::kDouble) * 0.37 + rank).sin().view({kTokens, -1});
           Arena workspace("workspace", int64_t{1} << 20, at::kCPU);

           at::Tensor local = at::zeros({kVocab, kWidth}).index_add_(0, id, grad.to(at::kFloat));
           local.select(0, kSkipped).zero_();
           const int table = whole.registry().Find("model.embed_tokens.weight");
           const Parameter& p = whole.registry().parameters()[table];
           whole.Gradients()(p.block).narrow(0, p.offset, p.numel).copy_(local.reshape({-1}));
           rows.gradients().narrow(0, 0, p.numel).fill_(1e9);  // of the step before

           const BlockGradients gradients = rows.Gradients();
           rows.optimizer().ReduceWhenFinal(gradients).of_embedding(
               {grad.to(at::kFloat), id, kSkipped}, workspace);
           const at::Tensor expected = whole.optimizer().ReduceGradients(whole.Gradients());
           const at::Tensor squares = rows.optimizer().ReduceGradients(gradients);
           EXPECT_NEAR(squares.item<double>(), expected.item<double>(),
                       1e-6 * expected.item<double>());
           const ParameterBlock& block = rows.registry().blocks()[p.block];
           const auto own = [&](Training& training) {
             const int64_t first = training.registry().shard_index(block) * block.shard_numel();
             return training.Gradients()(p.block).narrow(0, first, block.shard_numel());
           };
           EXPECT_TRUE(at::allclose(own(rows), own(whole), 1e-6, 1e-6));
         });
}

INSTANTIATE_TEST_SUITE_P(Meshes, MeshesTest,
                         ::testing::Values(std::pair{1, 1}, std::pair{2, 1}, std::pair{2, 2},
                                           std::pair{4, 2}, std::pair{4, 4}),
                         [](const auto& param_info) {
                           return "W" + std::to_string(param_info.param.first) + "Ep" +
                                  std::to_string(param_info.param.second);
                         });

TEST(ShardedOptimizerTest, DecaysOnlyTensorsOfTwoOrMoreDimensions) {
  const Mesh mesh = *Mesh::Create(1, 1, 4);
  RunRanks(1, [&](int) {
    MeshCommunicators alone = JoinMeshGroups(mesh, {}).communicators;
    Training training(mesh, 0, alone, at::kFloat);
    const at::Tensor before = training.registry().values().clone();
    // Gradients are zero.
    training.optimizer().Update(training.Gradients(), 1.0, 1.0, at::zeros({1}, at::kDouble),
                                at::zeros({1}, at::kDouble));
    for (size_t i = 0; i < training.registry().parameters().size(); ++i) {
      const Parameter& p = training.registry().parameters()[i];
      const at::Tensor old =
          before.narrow(0, training.registry().blocks()[p.block].offset + p.offset, p.numel);
      const double factor = p.shape.size() >= 2 ? 0.9 : 1.0;
      EXPECT_LT(
          RelativeError(training.registry().Value(static_cast<int>(i)).reshape({-1}), old * factor),
          1e-6)
          << p.name;
    }
  });
}

}  // namespace
}  // namespace switchyard::trainer
