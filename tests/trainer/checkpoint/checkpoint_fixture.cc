#include "tests/trainer/checkpoint/checkpoint_fixture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard::trainer {
namespace {

constexpr char kConfig[] = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu",
  "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 40, "intermediate_size": 24,
  "moe_intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2,
  "mlp_only_layers": [0], "decoder_sparse_step": 1, "norm_topk_prob": true,
  "router_aux_loss_coef": 0.001, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
  "max_position_embeddings": 64, "tie_word_embeddings": %s,
  "attention_bias": true
})";

std::string Config(bool tied) { return absl::StrFormat(kConfig, tied ? "true" : "false"); }

}  // namespace

ModelShape TinyShape(bool tied) {
  const auto shape = ParseModelConfig(Config(tied));
  EXPECT_TRUE(shape.ok()) << shape.status();
  return *shape;
}

NamedTensors TinyTensors(const CheckpointStyle& style) {
  at::Generator generator = at::detail::createCPUGenerator(11);
  const ModelShape shape = TinyShape(style.tied);
  NamedTensors tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> sizes) {
    tensors.emplace_back(
        name, at::randn(sizes, generator, at::TensorOptions(at::kFloat)).to(style.dtype));
  };
  const int64_t d = shape.hidden_size, f = shape.moe_intermediate_size, c = shape.head_dim;
  add("model.embed_tokens.weight", {shape.vocab_size, d});
  for (int64_t i = 0; i < shape.num_layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    add(layer + "input_layernorm.weight", {d});
    add(layer + "self_attn.q_proj.weight", {shape.num_heads * c, d});
    add(layer + "self_attn.k_proj.weight", {shape.num_kv_heads * c, d});
    add(layer + "self_attn.v_proj.weight", {shape.num_kv_heads * c, d});
    add(layer + "self_attn.o_proj.weight", {d, shape.num_heads * c});
    add(layer + "self_attn.q_proj.bias", {shape.num_heads * c});
    add(layer + "self_attn.k_proj.bias", {shape.num_kv_heads * c});
    add(layer + "self_attn.v_proj.bias", {shape.num_kv_heads * c});
    add(layer + "self_attn.o_proj.bias", {d});
    add(layer + "self_attn.q_norm.weight", {c});
    add(layer + "self_attn.k_norm.weight", {c});
    add(layer + "post_attention_layernorm.weight", {d});
    const std::string mlp = layer + "mlp.";
    if (!shape.is_moe_layer[i]) {
      add(mlp + "gate_proj.weight", {shape.intermediate_size, d});
      add(mlp + "up_proj.weight", {shape.intermediate_size, d});
      add(mlp + "down_proj.weight", {d, shape.intermediate_size});
      continue;
    }
    add(mlp + "gate.weight", {shape.num_experts, d});
    if (style.fused) {
      add(mlp + "experts.gate_up_proj", {shape.num_experts, 2 * f, d});
      add(mlp + "experts.down_proj", {shape.num_experts, d, f});
      continue;
    }
    for (int64_t e = 0; e < shape.num_experts; ++e) {
      const std::string expert = absl::StrCat(mlp, "experts.", e, ".");
      add(expert + "down_proj.weight", {d, f});
      add(expert + "gate_proj.weight", {f, d});
      add(expert + "up_proj.weight", {f, d});
    }
  }
  add("model.norm.weight", {d});
  if (!style.tied) add("lm_head.weight", {shape.vocab_size, d});
  if (style.tied && style.head_though_tied)
    tensors.emplace_back("lm_head.weight", tensors[0].second.clone());
  return tensors;
}

void WriteTinyCheckpoint(const std::string& directory, const CheckpointStyle& style,
                         const NamedTensors& tensors) {
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/config.json") << Config(style.tied);
  std::ofstream(directory + "/tokenizer.json") << "{\"version\": \"1.0\"}";
  if (style.files == 1) {
    ASSERT_TRUE(WriteTensors(directory + "/model.safetensors", tensors).ok());
    return;
  }
  std::vector<NamedTensors> files(style.files);
  nlohmann::json index = {{"metadata", {{"total_size", 1}}}};
  for (size_t i = 0; i < tensors.size(); ++i) {
    const size_t file = i * files.size() / tensors.size();
    files[file].push_back(tensors[i]);
    index["weight_map"][tensors[i].first] =
        absl::StrFormat("model-%05d-of-%05d.safetensors", file + 1, files.size());
  }
  for (size_t i = 0; i < files.size(); ++i) {
    ASSERT_TRUE(WriteTensors(absl::StrFormat("%s/model-%05d-of-%05d.safetensors", directory, i + 1,
                                             files.size()),
                             files[i])
                    .ok());
  }
  std::ofstream(directory + "/model.safetensors.index.json") << index.dump(2) << "\n";
}

Rank::Rank(const ModelShape& shape, int world, int ep, int rank, at::ScalarType dtype, bool compact)
    : registry(shape, *Mesh::Create(world, ep, static_cast<int>(shape.num_experts)), rank) {
  registry.BindValues(at::empty({registry.total_numel()}, at::TensorOptions(dtype)).fill_(-77));
  const at::ScalarType moments = compact ? at::kBFloat16 : at::kFloat;
  for (size_t b = 0; b < registry.blocks().size(); ++b) {
    const int64_t n = registry.blocks()[b].shard_numel();
    OptimizerShard shard;
    shard.block = static_cast<int>(b);
    shard.exp_avg = at::empty({n}, at::TensorOptions(moments)).fill_(-77);
    shard.exp_avg_sq = at::empty({n}, at::TensorOptions(moments)).fill_(-77);
    if (dtype == at::kBFloat16 && !compact) {
      shard.master_remainder = at::empty({n}, at::TensorOptions(at::kShort)).fill_(-77);
    }
    state.shards.push_back(std::move(shard));
  }
}

void CheckpointTest::SetUp() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  dir_ =
      absl::StrCat(::testing::TempDir(), "/switchyard_checkpoint.", ::getpid(), ".", info->name());
  std::filesystem::remove_all(dir_);
  std::filesystem::create_directories(dir_);
}

std::string ReadBytes(const std::string& path) {
  std::ostringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}

}  // namespace switchyard::trainer
