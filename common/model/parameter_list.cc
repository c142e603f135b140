#include "common/model/parameter_list.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {

void AddLayer(const ModelShape& s, int layer, int64_t experts, std::vector<ParameterSpec>& out) {
  const auto add = [&](const char* name, std::vector<int64_t> shape, bool expert = false) {
    out.push_back(
        {absl::StrCat("model.layers.", layer, ".", name), std::move(shape), expert, layer});
  };
  const int64_t query = s.num_heads * s.head_dim;
  const int64_t key_value = s.num_kv_heads * s.head_dim;
  add("self_attn.q_proj.weight", {query, s.hidden_size});
  add("self_attn.k_proj.weight", {key_value, s.hidden_size});
  add("self_attn.v_proj.weight", {key_value, s.hidden_size});
  add("self_attn.o_proj.weight", {s.hidden_size, query});
  if (s.is_moe_layer[layer]) {
    add("mlp.gate.weight", {s.num_experts, s.hidden_size});
  } else {
    add("mlp.gate_proj.weight", {s.intermediate_size, s.hidden_size});
    add("mlp.up_proj.weight", {s.intermediate_size, s.hidden_size});
    add("mlp.down_proj.weight", {s.hidden_size, s.intermediate_size});
  }
  add("input_layernorm.weight", {s.hidden_size});
  add("post_attention_layernorm.weight", {s.hidden_size});
  add("self_attn.q_norm.weight", {s.head_dim});
  add("self_attn.k_norm.weight", {s.head_dim});
  if (s.attention_bias) {
    add("self_attn.q_proj.bias", {query});
    add("self_attn.k_proj.bias", {key_value});
    add("self_attn.v_proj.bias", {key_value});
    add("self_attn.o_proj.bias", {s.hidden_size});
  }
  if (s.is_moe_layer[layer]) {
    add("mlp.experts.gate_up_proj", {experts, 2 * s.moe_intermediate_size, s.hidden_size}, true);
    add("mlp.experts.down_proj", {experts, s.hidden_size, s.moe_intermediate_size}, true);
  }
}

}  // namespace

int64_t ParameterSpec::numel() const {
  int64_t product = 1;
  for (int64_t size : shape) product *= size;
  return product;
}

std::vector<ParameterSpec> ListParameters(const ModelShape& shape, int64_t experts) {
  std::vector<ParameterSpec> out;
  out.push_back({"model.embed_tokens.weight", {shape.vocab_size, shape.hidden_size}});
  const int head = shape.tie_word_embeddings ? kOuterLayer : kHeadLayer;
  if (!shape.tie_word_embeddings) {
    out.push_back({"lm_head.weight", {shape.vocab_size, shape.hidden_size}, false, head});
  }
  out.push_back({"model.norm.weight", {shape.hidden_size}, false, head});
  for (int layer = 0; layer < shape.num_layers; ++layer) AddLayer(shape, layer, experts, out);
  return out;
}

int64_t LargestGradientMatrix(const ModelShape& m) {
  const bool has_dense_layers = m.num_moe_layers() < m.num_layers;
  const int64_t side =
      std::max({m.vocab_size, (m.num_heads + 2 * m.num_kv_heads) * m.head_dim, m.num_experts,
                2 * m.moe_intermediate_size, has_dense_layers ? 2 * m.intermediate_size : 0});
  return side * m.hidden_size;
}

int64_t PaddedBlock(int64_t numel, int64_t shards) {
  const int64_t unit = shards * kShardAlignment;
  return (numel + unit - 1) / unit * unit;
}

}  // namespace switchyard
