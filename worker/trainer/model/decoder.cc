#include "worker/trainer/model/decoder.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <utility>

#include "common/model/parameter_list.h"
#include "worker/trainer/model/arena.h"
#include "worker/trainer/model/decoder_layer.h"
#include "worker/trainer/model/gradient_store.h"
#include "worker/trainer/model/initialize.h"
#include "worker/trainer/model/output_head.h"
#include "worker/trainer/moe/load_balance.h"
#include "worker/trainer/ops/device_ops.h"
#include "worker/trainer/ops/qk_norm_rope.h"
#include "worker/trainer/ops/rows.h"

namespace switchyard::trainer {
namespace {

RankMemory PlanMemory(const DecoderOptions& o) {
  RankMemoryInput input;
  input.model = o.shape;
  input.ranks = o.mesh.world_size();
  input.expert_parallel = o.mesh.expert_parallel();
  input.micro_batch_sequences = o.max_sequences;
  input.sequence_length = o.max_sequence_length;
  input.gradient_accumulation = o.gradient_accumulation;
  input.precision = o.precision;
  input.optimizer = o.optimizer;
  input.activations = o.activations;
  input.device = o.device.is_cpu() ? DeviceKind::kCpu : DeviceKind::kCuda;
  return ComputeRankMemory(input);
}

}  // namespace

struct Decoder::Parts {
  explicit Parts(DecoderOptions o)
      : options(std::move(o)),
        device(options.device),
        dtype(options.precision == Precision::kFloat32 ? at::kFloat : at::kBFloat16),
        memory(PlanMemory(options)),
        registry(options.shape, options.mesh, options.rank),
        state("state", memory.parameters, device),
        workspace("workspace", memory.workspace + memory.logits, device),
        balance(options.shape.num_moe_layers(), options.shape.num_experts, device) {
    TORCH_CHECK(device.is_cpu() || dtype == at::kBFloat16, "a GPU trains in bfloat16");
    for (size_t i = 0; i < memory.slot_bytes.size(); ++i) {
      slots.emplace_back("slot " + std::to_string(i), memory.slot_bytes[i], device);
    }
    registry.BindValues(state.Take({registry.total_numel()}, dtype).zero_());
    const bool accumulates = options.gradient_accumulation > 1;
    at::Tensor scratch;
    if (accumulates && dtype != at::kFloat) {
      scratch = workspace.Take({LargestGradientMatrix(options.shape)}, dtype);
    }
    gradients =
        std::make_unique<GradientStore>(registry, slots, dtype, device, accumulates, scratch);
    int moe_layers = 0;
    for (int i = 0; i < options.shape.num_layers; ++i) {
      layers.emplace_back(options.shape, registry, *gradients, i, moe_layers);
      if (options.shape.is_moe_layer[i]) ++moe_layers;
    }
    head =
        std::make_unique<OutputHead>(options.shape, registry, *gradients, memory.logits_chunk_rows);
    const int embedding_index = registry.Find("model.embed_tokens.weight");
    embedding = registry.Value(embedding_index);
    grad_embedding = gradients->Destination(embedding_index).value;
    if (!device.is_cpu()) {
      ops::Device().Prepare(options.shape, options.max_sequences * options.max_sequence_length,
                            &workspace);
    }
  }

  // The batch where the model is, after a look at its shape.
  Batch Enter(const Batch& batch) const {
    CheckBatch(batch);
    return device.is_cpu() ? batch : ops::Device().Upload(batch);
  }

  StepContext Context(const Batch& batch) {
    const int64_t tokens = batch.num_sequences * batch.sequence_length;
    StepContext context{batch,
                        workspace,
                        options.dispatcher,
                        balance,
                        {},
                        {},
                        dtype,
                        memory.row_capacity,
                        SavedUnder(memory.activations)};
    context.rows_on_device = !device.is_cpu();
    const int64_t pairs = options.shape.head_dim / 2;
    const at::Tensor rotary = workspace.Take({tokens, pairs, 2}, at::kFloat);
    context.cos = rotary.select(2, 0);
    context.sin = rotary.select(2, 1);
    ops::RotaryTables(batch.position_T, options.shape.rope_theta, context.cos, context.sin);
    return context;
  }

  // Output of the last layer, in the last slot.
  at::Tensor Forward(StepContext& context) {
    const int64_t tokens = context.num_tokens();
    slots[0].Reset();
    at::Tensor x = slots[0].Take({tokens, options.shape.hidden_size}, dtype);
    at::index_select_out(x, embedding, 0, context.batch.input_id_T);
    for (size_t i = 0; i < layers.size(); ++i) {
      slots[i + 1].Reset();
      at::Tensor next = slots[i + 1].Take(x.sizes(), dtype);
      RECORD_USER_SCOPE("layer forward");
      layers[i].Forward(context, slots[i], x, next);
      x = next;
    }
    return x;
  }

  void AddEmbeddingGradient(const ops::EmbeddingRows& rows, const FinalGradients& final_gradients) {
    if (memory.gathers_embedding_rows && final_gradients.of_embedding) {
      return final_gradients.of_embedding(rows, workspace);
    }
    // A tied head has written its share to the same place.
    const bool add = gradients->accumulates() || options.shape.tie_word_embeddings;
    const ops::TablePart whole = {grad_embedding, 0, grad_embedding.numel(), add};
    ops::SumEmbeddingRows(rows, whole, workspace, [&] {
      if (!add) grad_embedding.zero_();
    });
  }

  void CheckBatch(const Batch& batch) const {
    const int64_t tokens = batch.num_sequences * batch.sequence_length;
    TORCH_CHECK(tokens > 0 && tokens <= options.max_sequences * options.max_sequence_length,
                "a batch of ", tokens, " tokens does not fit the planned ",
                options.max_sequences * options.max_sequence_length);
    for (const at::Tensor& t :
         {batch.input_id_T, batch.target_T, batch.position_T, batch.valid_T}) {
      TORCH_CHECK(t.dim() == 1 && t.size(0) == tokens && t.is_contiguous(),
                  "a batch's tensors must be contiguous [", tokens, "]");
    }
    TORCH_CHECK(batch.document_offset.scalar_type() == at::kInt &&
                    batch.document_offset[-1].item<int32_t>() == tokens,
                "the last document must end at ", tokens);
  }

  DecoderOptions options;
  at::Device device;
  at::ScalarType dtype;
  RankMemory memory;
  ParameterRegistry registry;
  Arena state;
  std::vector<Arena> slots;
  Arena workspace;
  LoadBalance balance;
  std::unique_ptr<GradientStore> gradients;
  std::vector<DecoderLayer> layers;
  std::unique_ptr<OutputHead> head;
  at::Tensor embedding;
  at::Tensor grad_embedding;
};

Decoder::Decoder(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Decoder::~Decoder() = default;

std::unique_ptr<Decoder> Decoder::Create(DecoderOptions options) {
  TORCH_CHECK(options.communicators != nullptr, "a decoder needs communicators");
  TORCH_CHECK(options.dispatcher != nullptr || options.shape.num_moe_layers() == 0,
              "a model with MoE layers needs a dispatcher");
  return std::unique_ptr<Decoder>(new Decoder(std::make_unique<Parts>(std::move(options))));
}

ParameterRegistry& Decoder::parameters() { return parts_->registry; }
const DecoderOptions& Decoder::options() const { return parts_->options; }
const RankMemory& Decoder::memory() const { return parts_->memory; }
at::Tensor Decoder::BlockGradient(int block) { return parts_->gradients->Block(block); }
at::Tensor Decoder::Gradient(int parameter) {
  return parts_->gradients->Destination(parameter).value;
}
at::ScalarType Decoder::gradient_dtype() const {
  return parts_->gradients->accumulates() ? at::kFloat : parts_->dtype;
}

ArenaUse Decoder::arena_use() const {
  ArenaUse use{parts_->state.bytes() + parts_->workspace.bytes(),
               parts_->state.high_water() + parts_->workspace.high_water()};
  for (const Arena& slot : parts_->slots) {
    use.planned += slot.bytes();
    use.high_water += slot.high_water();
  }
  return use;
}

void Decoder::InitializeRandom(int64_t seed) {
  InitializeParameters(parts_->options.shape, parts_->registry, seed);
}

void Decoder::ZeroGradients() {
  if (parts_->gradients->accumulates()) parts_->gradients->ZeroAll();
}

MicroBatchResult Decoder::ForwardBackward(const Batch& host_batch, const LossScale& scale,
                                          PhaseTimer* phases,
                                          const FinalGradients& final_gradients) {
  Parts& p = *parts_;
  const Batch batch = p.Enter(host_batch);
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  ArenaScope scope(p.workspace);
  StepContext context = p.Context(batch);
  context.phases = phases;
  MicroBatchResult result;
  result.targets = batch.num_targets;
  result.tokens = batch.num_tokens;
  at::Tensor x, aux_loss, entropy;
  {
    const PhaseScope phase(phases, StepPhase::kForward);
    x = p.Forward(context);
    if (p.options.shape.num_moe_layers() > 0) {
      p.balance.Reduce(*p.options.communicators->world, batch.num_tokens, scale.aux);
      aux_loss = p.balance.loss();
      entropy = p.balance.router_entropy(batch.num_tokens);
      result.tokens_per_expert = p.balance.tokens_per_expert();
    } else {
      aux_loss = entropy = at::zeros({1}, x.options().dtype(at::kDouble));
    }
  }
  at::Tensor grad = p.workspace.Take(x.sizes(), p.dtype);
  const PhaseScope phase(phases, StepPhase::kBackward);
  {
    RECORD_USER_SCOPE("head");
    result.sums = at::cat(
        {p.head->ForwardBackward(context, x, scale.cross_entropy, grad), aux_loss, entropy});
  }
  for (int i = static_cast<int>(p.layers.size()) - 1; i >= 0; --i) {
    RECORD_USER_SCOPE("layer backward");
    if (final_gradients.of_layer) {
      const bool first = i + 1 == static_cast<int>(p.layers.size());
      const int ready = first ? kHeadLayer : i + 1;  // a tied head has no block of its own
      context.beside_attention = [&final_gradients, ready] { final_gradients.of_layer(ready); };
    }
    p.layers[i].Backward(context, grad);
    p.gradients->ZeroPadding(i);
  }
  p.AddEmbeddingGradient({grad, batch.input_id_T, p.options.shape.pad_token_id}, final_gradients);
  return result;
}

EvalResult Decoder::Evaluate(const Batch& host_batch) {
  Parts& p = *parts_;
  const Batch batch = p.Enter(host_batch);
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  ArenaScope scope(p.workspace);
  StepContext context = p.Context(batch);
  const at::Tensor x = p.Forward(context);
  return {p.head->Forward(context, x).item<double>(), batch.num_targets};
}

at::Tensor Decoder::Logits(const Batch& host_batch) {
  Parts& p = *parts_;
  const Batch batch = p.Enter(host_batch);
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  ArenaScope scope(p.workspace);
  StepContext context = p.Context(batch);
  return p.head->Logits(context, p.Forward(context));
}

}  // namespace switchyard::trainer
