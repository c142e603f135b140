#include "tests/coordinator/plan/plan_fixtures.h"

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/units.h"

namespace switchyard::coordinator {
namespace {

ModelShape Parse(const std::string& config) {
  auto shape = ParseModelConfig(config);
  SWITCHYARD_CHECK(shape.ok(), "the fixture's config is one of a supported model");
  return *shape;
}

std::vector<PlannerSlot> Slots(int nodes, int slots_per_node, const PlannerSlot& like,
                               const std::string& domain) {
  std::vector<PlannerSlot> slots;
  for (int node = 0; node < nodes; ++node) {
    for (int index = 0; index < slots_per_node; ++index) {
      PlannerSlot slot = like;
      slot.node = absl::StrCat("node", node);
      slot.index = index;
      slot.node_slots = slots_per_node;
      slot.memory_domain = domain.empty() ? slot.node : domain;
      slots.push_back(slot);
    }
  }
  return slots;
}

}  // namespace

ModelShape Qwen3Moe30B() {
  return Parse(R"({
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "attention_bias": false,
    "attention_dropout": 0.0, "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 6144,
    "max_position_embeddings": 40960, "mlp_only_layers": [], "moe_intermediate_size": 768,
    "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 48, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "use_sliding_window": false, "vocab_size": 151936})");
}

ModelShape DemoModel() {
  return Parse(R"({
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "decoder_sparse_step": 1,
    "head_dim": 32, "hidden_act": "silu", "hidden_size": 192, "intermediate_size": 384,
    "max_position_embeddings": 1024, "mlp_only_layers": [], "moe_intermediate_size": 160,
    "norm_topk_prob": true, "num_attention_heads": 6, "num_experts": 32, "num_experts_per_tok": 4,
    "num_hidden_layers": 3, "num_key_value_heads": 3, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.01, "tie_word_embeddings": true, "torch_dtype": "float32",
    "vocab_size": 8192})");
}

v1::JobSpec SpecOf(int sequence_length, int global_batch) {
  v1::JobSpec spec;
  spec.set_name("job");
  spec.set_model("/models/m");
  spec.mutable_data()->set_train("/data/train.jsonl");
  spec.mutable_data()->set_sequence_length(sequence_length);
  spec.mutable_training()->set_epochs(1);
  spec.mutable_training()->set_global_batch_sequences(global_batch);
  spec.mutable_checkpoint()->set_output("/out/job");
  spec.mutable_checkpoint()->set_interval_steps(100);
  return spec;
}

std::vector<PlannerSlot> GpuSlots(int nodes, int slots_per_node, const std::string& product,
                                  int64_t memory_bytes) {
  PlannerSlot slot;
  slot.device = "cuda";
  slot.product = product;
  slot.memory_bytes = memory_bytes;
  slot.cpu_cores = 64;
  return Slots(nodes, slots_per_node, slot, "");
}

std::vector<PlannerSlot> CpuSlots(int nodes, int slots_per_node, int cores, int64_t memory_bytes) {
  PlannerSlot slot;
  slot.device = "cpu";
  slot.product = "x86";
  slot.memory_bytes = memory_bytes;
  slot.cpu_cores = cores;
  return Slots(nodes, slots_per_node, slot, "host");
}

PlanInput Qwen3On(std::vector<PlannerSlot> slots) {
  PlanInput input;
  input.spec = SpecOf(4096, 64);
  input.model = Qwen3Moe30B();
  input.checkpoint_model_bytes = 2 * input.model.NumParameters();
  input.train_sequences = 6400;
  input.slots = std::move(slots);
  input.disk_free_bytes = 4096 * kGiB;
  return input;
}

PlanInput DemoInput() {
  PlanInput input;
  input.spec = SpecOf(256, 8);
  input.model = DemoModel();
  input.spec.mutable_mesh()->set_ranks(4);
  input.spec.mutable_mesh()->set_expert_parallel(2);
  input.checkpoint_model_bytes = 4 * input.model.NumParameters();
  input.train_sequences = 2548;
  input.slots = CpuSlots(2, 2, 2, 6 * kGiB);
  input.disk_free_bytes = 20 * kGiB;
  return input;
}

int64_t BytesOf(const v1::Plan& plan, const std::string& category) {
  for (const auto& entry : plan.memory()) {
    if (entry.name() == category) return entry.bytes();
  }
  return -1;
}

}  // namespace switchyard::coordinator
