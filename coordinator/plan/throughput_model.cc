#include "coordinator/plan/throughput_model.h"

#include <algorithm>

namespace switchyard::coordinator {
namespace {

double ElementBytes(Precision precision) { return precision == Precision::kFloat32 ? 4 : 2; }

// Seconds a token spends in GEMMs and attention, forward and backward.
double MatrixSeconds(const RankMemoryInput& rank, const DeviceRates& rates) {
  const ModelShape& model = rank.model;
  const auto layers = static_cast<double>(model.num_layers);
  const auto moe_layers = static_cast<double>(model.num_moe_layers());
  const auto hidden = static_cast<double>(model.hidden_size);
  const auto query = static_cast<double>(model.num_heads * model.head_dim);
  const auto key_value = static_cast<double>(model.num_kv_heads * model.head_dim);

  // Parameters that multiply a token; 6 FLOPs each, forward and backward.
  const double expert = moe_layers * static_cast<double>(model.experts_per_token) * 3 * hidden *
                        static_cast<double>(model.moe_intermediate_size);
  double dense = layers * hidden * (2 * query + 2 * key_value);
  dense += moe_layers * hidden * static_cast<double>(model.num_experts);
  dense += (layers - moe_layers) * 3 * hidden * static_cast<double>(model.intermediate_size);
  dense += hidden * static_cast<double>(model.vocab_size);

  // Causal: half of 4 x S x heads x head_dim; the backward recomputes the scores.
  const double attention = layers * 2 * static_cast<double>(rank.sequence_length) * query;
  return 6 * dense / rates.dense_flops + 6 * expert / rates.expert_flops +
         attention / rates.attention_forward_flops +
         2.5 * attention / rates.attention_backward_flops;
}

// What the backward computes again; without a value nothing is.
SavedParts Kept(const RankMemoryInput& rank) {
  return SavedUnder(rank.activations.value_or(ActivationMemory::kSaveAll));
}

// Seconds a token spends in products that are computed a second time: 2 FLOPs a parameter.
double RecomputeSeconds(const RankMemoryInput& rank, const DeviceRates& rates) {
  const ModelShape& model = rank.model;
  const auto layers = static_cast<double>(model.num_layers);
  const auto moe_layers = static_cast<double>(model.num_moe_layers());
  const auto hidden = static_cast<double>(model.hidden_size);
  const auto heads = static_cast<double>((model.num_heads + model.num_kv_heads) * model.head_dim);
  double seconds = 0;
  if (!Kept(rank).gate_up) {
    const double routed =
        static_cast<double>(model.experts_per_token * model.moe_intermediate_size);
    const auto dense = static_cast<double>(model.intermediate_size);
    seconds += 2 * moe_layers * 2 * hidden * routed / rates.expert_flops +
               2 * (layers - moe_layers) * 2 * hidden * dense / rates.dense_flops;
  }
  if (!Kept(rank).layer) seconds += 2 * layers * 2 * hidden * heads / rates.dense_flops;
  return seconds;
}

// Bytes a token moves through memory outside GEMMs: about 79 rows of the hidden size a layer with 8
// experts, fused as the engine fuses them; when rows are brought once more, these read and written,
// and the norm before.
double ElementwiseSeconds(const RankMemoryInput& rank, const DeviceRates& rates) {
  double rows = static_cast<double>(rank.model.num_layers) * 79;
  if (!Kept(rank).rows) {
    rows +=
        static_cast<double>(rank.model.num_moe_layers() * (2 * rank.model.experts_per_token + 2));
  }
  return rows * static_cast<double>(rank.model.hidden_size) * ElementBytes(rank.precision) /
         rates.memory_bytes_per_second;
}

// Dispatch and combine, forward and backward; and dispatch once more where its outcome is not kept.
double Exchanges(const RankMemoryInput& rank) { return Kept(rank).layer ? 4 : 5; }

// One row a token and destination rank.
double ExchangeSeconds(const RankMemoryInput& rank, const DeviceRates& rates) {
  const ModelShape& model = rank.model;
  const double rows =
      ExpectedRemoteRanks(model.num_experts, model.experts_per_token, rank.expert_parallel);
  return Exchanges(rank) * static_cast<double>(model.num_moe_layers()) * rows *
         static_cast<double>(model.hidden_size) * ElementBytes(rank.precision) /
         rates.link_bytes_per_second;
}

// Reduce-scatter of gradients and all-gather of parameters; gradients are float32 once accumulated.
// Of the embedding's, only rows are sent where there are few (common/model/rank_memory.h).
double ReductionSeconds(const ThroughputInput& input, double replicated, double experts) {
  const RankMemoryInput& rank = input.rank;
  const double speed = input.nodes > 1 ? input.rates.network_bytes_per_second
                                       : input.rates.collective_bytes_per_second;
  const auto share = [](double members) { return members > 1 ? (members - 1) / members : 0; };
  const auto world = static_cast<double>(rank.ranks);
  const double replicas = world / static_cast<double>(rank.expert_parallel);
  const double gradient = rank.gradient_accumulation > 1 ? 4 : ElementBytes(rank.precision);
  double bytes = (replicated * share(world) + experts * share(replicas)) *
                 (gradient + ElementBytes(rank.precision));
  if (GathersEmbeddingRows(rank)) {
    const auto rows =
        static_cast<double>(rank.micro_batch_sequences) * static_cast<double>(rank.sequence_length);
    bytes += ((world - 1) * rows - share(world) * static_cast<double>(rank.model.vocab_size)) *
             static_cast<double>(rank.model.hidden_size) * gradient;
  }
  return bytes / speed;
}

// What the host needs to enqueue a step. It runs ahead of the device, so a step takes the longer of
// the two.
double LaunchSeconds(const RankMemoryInput& rank, const DeviceRates& rates) {
  const auto layers = static_cast<double>(rank.model.num_layers);
  const double enqueued = static_cast<double>(rank.gradient_accumulation) *
                          (layers * rates.launch_layer_seconds + rates.launch_rest_seconds);
  // A reduce-scatter and an all-gather of each layer, and a few for the rest.
  const double collectives = rank.ranks > 1 ? 2 * layers + 4 : 0;
  return enqueued + collectives * rates.launch_collective_seconds;
}

}  // namespace

double ExpectedRemoteRanks(int64_t experts, int64_t experts_per_token, int64_t expert_parallel) {
  if (expert_parallel <= 1 || experts <= 0) return 0;
  const int64_t elsewhere = experts - experts / expert_parallel;
  double none = 1;  // probability that one rank has none of the token's experts
  for (int64_t i = 0; i < experts_per_token; ++i) {
    none *= std::max(0.0, static_cast<double>(elsewhere - i) / static_cast<double>(experts - i));
  }
  return static_cast<double>(expert_parallel - 1) * (1 - none);
}

StepTime PredictStep(const ThroughputInput& input) {
  const RankMemoryInput& rank = input.rank;
  const ModelShape& model = rank.model;
  const DeviceRates& rates = input.rates;
  const auto micro_batches = static_cast<double>(rank.gradient_accumulation);
  const double tokens = micro_batches * static_cast<double>(rank.micro_batch_sequences) *
                        static_cast<double>(rank.sequence_length);
  const auto world = static_cast<double>(rank.ranks);
  const auto expert_parameters = static_cast<double>(model.NumExpertParameters());
  const double replicated = static_cast<double>(model.NumParameters()) - expert_parameters;
  const double local_experts = expert_parameters / static_cast<double>(rank.expert_parallel);

  StepTime time;
  time.compute = tokens *
                 (MatrixSeconds(rank, rates) + RecomputeSeconds(rank, rates) +
                  ElementwiseSeconds(rank, rates)) /
                 input.devices;
  time.exchange = tokens * ExchangeSeconds(rank, rates) / std::min(1.0, input.devices);
  time.reduction = ReductionSeconds(input, replicated, local_experts);
  // AdamW reads the gradient once and reads and writes the rest: 14 and 26 bytes an element
  // (kernels/adamw.h). The clip reads the gradient once more, mostly beside attention: counted for
  // `exact` only, because the rates were checked against whole steps that way.
  const double touched = rank.optimizer == OptimizerProfile::kCompact ? 14 : 28;
  const double owned = replicated / world + expert_parameters / world;
  time.optimizer = owned * touched / rates.memory_bytes_per_second / input.devices;

  const auto moe_layers = static_cast<double>(model.num_moe_layers());
  const double experts_here =
      static_cast<double>(model.num_experts) / static_cast<double>(rank.expert_parallel);
  time.overhead = micro_batches *
                  (static_cast<double>(model.num_layers) * rates.layer_seconds +
                   moe_layers * experts_here * rates.expert_seconds) /
                  std::min(1.0, input.devices);
  if (rank.expert_parallel > 1)
    time.overhead += micro_batches * 2 * Exchanges(rank) * moe_layers * rates.barrier_seconds;
  if (rank.ranks > 1) {
    time.overhead += (2 * static_cast<double>(model.num_layers) + 4) * rates.barrier_seconds;
  }
  time.launch = std::max(0.0, LaunchSeconds(rank, rates) - time.Total());
  return time;
}

}  // namespace switchyard::coordinator
