#include "worker/trainer/bench/calibrate.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/cpu_product.h"
#include "worker/trainer/bench/bench_step.h"
#include "worker/trainer/bench/rates_file.h"
#include "worker/trainer/ops/attention.h"
#include "worker/trainer/ops/grouped_gemm.h"

namespace switchyard::trainer {
namespace {

// Elementwise kernels reach about this part of the copy rate.
constexpr double kElementwiseShare = 0.85;
constexpr double kSecondsEach = 0.15;  // under load so long, the power limit decides the clock

// Shapes to measure with: Qwen3-30B-A3B's on a GPU; on a CPU, which trains small models, those of
// the quickstart's model.
constexpr char kGpuShape[] = R"({"model_type": "qwen3_moe", "hidden_size": 2048,
    "num_hidden_layers": 1, "vocab_size": 151936, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
    "moe_intermediate_size": 768, "norm_topk_prob": true})";
constexpr char kCpuShape[] = R"({"model_type": "qwen3_moe", "hidden_size": 192,
    "num_hidden_layers": 1, "vocab_size": 8192, "num_attention_heads": 6,
    "num_key_value_heads": 3, "head_dim": 32, "num_experts": 32, "num_experts_per_tok": 4,
    "moe_intermediate_size": 96, "norm_topk_prob": true})";
// So small that a GPU is through before the host has enqueued the next operation.
constexpr char kTinyShape[] = R"({"model_type": "qwen3_moe", "hidden_size": 256,
    "num_hidden_layers": %LAYERS%, "vocab_size": 512, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "num_experts": 16, "num_experts_per_tok": 4,
    "moe_intermediate_size": 64, "norm_topk_prob": true})";

ModelShape Parse(std::string json, const std::string& layers = "") {
  const std::string mark = "%LAYERS%";
  if (const size_t at = json.find(mark); at != std::string::npos)
    json.replace(at, mark.size(), layers);
  return ParseModelConfig(json).value();
}

class Calibration {
 public:
  Calibration(const BenchOptions& options, int rank, std::string rendezvous_id)
      : options_(options), rank_(rank), rendezvous_id_(std::move(rendezvous_id)) {
    options_.micro_batch = options_.accumulation = options_.documents = 1;
    options_.expert_parallel = options_.ranks;
    options_.dtype = gpu() ? "bfloat16" : "float32";
  }

  MeasuredRates Run() {
    MeasuredRates rates;
    // On a CPU nobody runs ahead of anybody. The other ranks wait below.
    if (gpu() && rank_ == 0) MeasureLaunches(rates);
    shape_ = Parse(gpu() ? kGpuShape : kCpuShape);
    options_.sequence_length = gpu() ? 4096 : 256;
    context_ = Connect(shape_, options_.ranks, tokens());
    const Batch batch = RandomBatch(options_, shape_.vocab_size, static_cast<uint32_t>(rank_));
    context_->decoder->InitializeRandom(0);
    context_->decoder->Evaluate(batch);  // the operations now know the batch's documents
    rates.device = options_.device;
    rates.precision = options_.dtype;
    rates.product = gpu() ? GpuBackend()->Product() : CpuProduct();
    MeasureGemms(rates);
    MeasureExperts(rates);
    MeasureAttention(rates, batch);
    MeasureCopies(rates);
    if (options_.ranks > 1) {
      MeasureExchange(rates);
      MeasureCollectives(rates);
    }
    context_->communicators().world->Check();
    return rates;
  }

 private:
  bool gpu() const { return options_.device == "cuda"; }
  at::Device device() const { return context_->decoder->options().device; }
  at::TensorOptions bf() const {
    return at::TensorOptions().dtype(gpu() ? at::kBFloat16 : at::kFloat).device(device());
  }
  int64_t element() const { return gpu() ? 2 : 4; }
  int64_t tokens() const { return options_.sequence_length; }

  std::unique_ptr<RankContext> Connect(const ModelShape& shape, int ranks, int64_t length) const {
    RankOptions connect;
    connect.shape = shape;
    connect.ranks = connect.expert_parallel = ranks;
    connect.rank = rank_;
    connect.device = options_.device;
    connect.precision = gpu() ? Precision::kBfloat16 : Precision::kFloat32;
    connect.sequence_length = length;
    connect.job_uid = "calibrate";
    connect.rendezvous_id = rendezvous_id_;
    return ConnectRank(connect);
  }

  // Seconds of one of `count` calls in a row.
  double SecondsOf(int count, const std::function<void()>& call) const {
    const TimeMark begin(device());
    for (int i = 0; i < count; ++i) call();
    return TimeMark(device()).SecondsSince(begin) / count;
  }
  // The same, under load for kSecondsEach.
  double Sustained(const std::function<void()>& call) const {
    const double first = SecondsOf(3, call);
    const int count = static_cast<int>(std::clamp(kSecondsEach / first, 3.0, 2000.0));
    SecondsOf(count, call);
    return SecondsOf(count, call);
  }

  // Whole steps of tiny models of two depths on one rank: what a layer adds and what is left
  // without any.
  void MeasureLaunches(MeasuredRates& rates) {
    constexpr int kShallow = 2, kDeep = 6, kSteps = 20;
    BenchOptions alone = options_;
    alone.ranks = alone.expert_parallel = 1;
    alone.sequence_length = 64;
    double seconds[2] = {};
    for (const bool deep : {false, true}) {
      const ModelShape shape = Parse(kTinyShape, std::to_string(deep ? kDeep : kShallow));
      context_ = Connect(shape, 1, alone.sequence_length);
      context_->decoder->InitializeRandom(0);
      ShardedOptimizer optimizer(context_->decoder->parameters(), context_->communicators(), {});
      const Batch batch = RandomBatch(alone, shape.vocab_size, 0);
      const auto step = [&] { EnqueueStep(alone, *context_, &optimizer, batch, nullptr); };
      SecondsOf(5, step);
      seconds[deep] = SecondsOf(kSteps, step);
      context_.reset();
    }
    const double layer = std::max(0.0, seconds[1] - seconds[0]) / (kDeep - kShallow);
    rates.Set("launch_layer_seconds", layer);
    rates.Set("launch_rest_seconds", std::max(0.0, seconds[0] - kShallow * layer));
  }

  // Projections of attention and the head: forward, and both gradients.
  void MeasureGemms(MeasuredRates& rates) const {
    const int64_t query = shape_.num_heads * shape_.head_dim;
    const int64_t key = shape_.num_kv_heads * shape_.head_dim;
    const int64_t sizes[][2] = {{query + 2 * key, shape_.hidden_size},
                                {shape_.hidden_size, query},
                                {shape_.vocab_size, shape_.hidden_size}};
    double flops = 0, seconds = 0;
    for (const auto& [n, k] : sizes) {
      at::Tensor x = at::randn({tokens(), k}, bf()), w = at::randn({n, k}, bf());
      at::Tensor y = at::empty({tokens(), n}, bf());
      at::Tensor grad_x = at::empty_like(x), grad_w = at::empty_like(w);
      seconds += Sustained([&] {
        at::mm_out(y, x, w.t());
        at::mm_out(grad_x, y, w);
        at::mm_out(grad_w, y.t(), x);
      });
      flops += 6.0 * static_cast<double>(tokens() * n * k);
    }
    rates.Set("dense_flops", flops / seconds);
  }

  // The six products of a layer's experts with even load.
  void MeasureExperts(MeasuredRates& rates) const {
    const int64_t experts = shape_.num_experts / options_.ranks, d = shape_.hidden_size,
                  f = shape_.moe_intermediate_size;
    const int64_t n = tokens() * shape_.experts_per_token;
    const ops::ExpertRows rows{
        at::arange(experts + 1, at::kLong).mul_(n / experts).to(device(), at::kInt), 0};
    const int64_t used = n / experts * experts;
    const at::Tensor up = at::randn({experts, 2 * f, d}, bf()).mul_(0.02),
                     down = at::randn({experts, d, f}, bf()).mul_(0.02);
    const at::Tensor x = at::randn({n, d}, bf()), gate_up = at::empty({n, 2 * f}, bf()),
                     h = at::empty({n, f}, bf()), y = at::empty({n, d}, bf());
    const at::Tensor weight = at::rand({n}, bf().dtype(at::kFloat));
    const ops::WeightGradient grad_up{at::empty_like(up)}, grad_down{at::empty_like(down)};
    const double seconds = Sustained([&] {
      ops::GroupedGemmSwiGlu(rows, x, up, weight, gate_up, h);
      ops::GroupedGemm(rows, h, down, y);
      ops::GroupedGemmTransposed(rows, x, down, h);
      ops::GroupedWeightGradient(rows, x, h, grad_down);
      ops::GroupedWeightGradient(rows, gate_up, x, grad_up);
      ops::GroupedGemmTransposed(rows, gate_up, up, y);
    });
    rates.Set("expert_flops", 18.0 * static_cast<double>(used * d * f) / seconds);
  }

  void MeasureAttention(MeasuredRates& rates, const Batch& batch) const {
    const ops::AttentionShape attention = {shape_.num_heads, shape_.num_kv_heads, shape_.head_dim};
    const int64_t query = shape_.num_heads * shape_.head_dim;
    const int64_t key = shape_.num_kv_heads * shape_.head_dim;
    // Laid out as in model/attention.cc on a GPU.
    const at::Tensor qkv = at::randn({tokens(), query + 2 * key}, bf());
    const at::Tensor qk = at::randn({tokens(), query + key}, bf());
    const at::Tensor grad_qk = at::empty_like(qk), grad_k = at::empty({tokens(), key}, bf()),
                     grad_v = at::empty_like(grad_k);
    const at::Tensor out = at::empty({tokens(), query}, bf()), grad = at::randn_like(out);
    const at::Tensor log_sum_exp = at::empty({tokens(), shape_.num_heads}, bf().dtype(at::kFloat));
    const at::Tensor q = qk.narrow(1, 0, query), k = qk.narrow(1, query, key),
                     v = qkv.narrow(1, query + key, key);
    // Causal: half of 4 x S x heads x head_dim a token; the backward recomputes the scores.
    const double flops = 2.0 * static_cast<double>(tokens() * tokens() * query);
    rates.Set("attention_forward_flops",
              flops / Sustained([&] {
                ops::CausalAttention(attention, q, k, v, batch.document_offset, out, log_sum_exp);
              }));
    rates.Set("attention_backward_flops", 2.5 * flops / Sustained([&] {
                                            ops::CausalAttentionBackward(
                                                attention, grad, q, k, v, out, log_sum_exp,
                                                batch.document_offset, grad_qk.narrow(1, 0, query),
                                                grad_k, grad_v);
                                          }));
  }

  void MeasureCopies(MeasuredRates& rates) const {
    const int64_t bytes = int64_t{1} << (gpu() ? 30 : 26);
    at::Tensor from = at::zeros({bytes}, bf().dtype(at::kByte)), to = at::empty_like(from);
    const double seconds = Sustained([&] { to.copy_(from); });
    rates.Set("memory_bytes_per_second",
              kElementwiseShare * 2 * static_cast<double>(bytes) / seconds);
    if (!gpu()) return;
    const at::Tensor host =
        at::empty({bytes / 4}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    at::Tensor part = to.narrow(0, 0, bytes / 4);
    rates.Set("host_bytes_per_second",
              static_cast<double>(bytes / 4) / Sustained([&] { part.copy_(host, true); }));
  }

  // Dispatch, combine and both ways back of `count` tokens; seconds of all four.
  double ExchangeSeconds(int64_t count, double* rows_sent) const {
    TokenDispatcher& dispatcher = *context_->dispatcher;
    const int64_t choices = shape_.experts_per_token, d = shape_.hidden_size;
    at::Tensor expert = at::empty({count, choices}, at::kLong);
    auto* chosen = expert.mutable_data_ptr<int64_t>();
    const int64_t local = shape_.num_experts / options_.ranks;
    *rows_sent = 0;
    for (int64_t t = 0; t < count; ++t) {
      std::set<int64_t> ranks;
      for (int64_t c = 0; c < choices; ++c) {  // spread evenly
        const int64_t e = (t + c * (shape_.num_experts / choices)) % shape_.num_experts;
        chosen[t * choices + c] = e;
        if (e / local != rank_) ranks.insert(e / local);
      }
      *rows_sent += static_cast<double>(ranks.size());
    }
    expert = expert.to(device(), gpu() ? at::kInt : at::kLong);
    const at::Tensor x = at::randn({count, d}, bf()), y = at::empty_like(x);
    const at::Tensor weight = at::rand({count, choices}, bf().dtype(at::kFloat));
    const at::Tensor grad_weight = at::empty_like(weight);
    const at::Tensor rows = at::empty({dispatcher.MaxRows(count), d}, bf());
    const at::Tensor grad_rows = at::rand({rows.size(0)}, bf().dtype(at::kFloat));
    Arena saved("saved",
                (int64_t{1} << 20) + options_.ranks * count * (d * element() + 64 * choices),
                device());
    const auto exchange = [&] {
      saved.Reset();
      const Routing routing = dispatcher.Dispatch(x, expert, weight, saved, rows);
      dispatcher.Combine(rows, routing, x, y);
      dispatcher.DispatchGradient(x, routing, rows);
      dispatcher.CombineGradient(rows, grad_rows, routing, y, grad_weight);
    };
    SecondsOf(10, exchange);  // as often on every rank
    return SecondsOf(30, exchange);
  }

  // Two numbers of tokens tell the rate from the cost of meeting, which the planner counts twice
  // for each of the four.
  void MeasureExchange(MeasuredRates& rates) const {
    double many_rows = 0, few_rows = 0;
    const double many = ExchangeSeconds(tokens(), &many_rows);
    const double few = ExchangeSeconds(tokens() / 8, &few_rows);
    const auto row_bytes = static_cast<double>(shape_.hidden_size * element());
    const double per_row = std::max(1e-12, (many - few) / (4 * (many_rows - few_rows)));
    rates.Set("link_bytes_per_second", row_bytes / per_row);
    rates.Set("barrier_seconds", std::max(0.0, few - 4 * few_rows * per_row) / 8);
  }

  void MeasureCollectives(MeasuredRates& rates) const {
    Communicator& world = *context_->communicators().world;
    const int64_t numel =
        (int64_t{1} << (gpu() ? 26 : 20)) / element() / world.size() * world.size();
    const int64_t own = numel / world.size();
    const at::Tensor all = at::zeros({numel}, bf());
    const at::Tensor part = all.narrow(0, world.rank() * own, own);
    const auto both = [&] {
      world.ReduceScatter(all, part);
      world.AllGather(part, all);
    };
    SecondsOf(5, both);
    const double moved = 2.0 * static_cast<double>((numel - own) * element());
    rates.Set("collective_bytes_per_second", moved / SecondsOf(20, both));
    const at::Tensor one = at::zeros({1}, bf().dtype(at::kDouble));
    SecondsOf(5, [&] { world.AllReduce(one); });
    rates.Set("launch_collective_seconds", SecondsOf(50, [&] { world.AllReduce(one); }));
  }

  BenchOptions options_;
  int rank_;
  std::string rendezvous_id_;
  ModelShape shape_;
  std::unique_ptr<RankContext> context_;
};

}  // namespace

RunEnd Calibrate(const BenchOptions& options, int rank, RankChannels& channels) {
  // Wrong before it takes time.
  if (rank == 0 && !options.out.empty()) ReadOtherRates(options.out);
  // The planner counts CPU cores.
  SetThreads(options.device == "cpu" ? 1 : options.threads, options.ranks);
  const std::string id = AgreeOnRendezvous(channels, rank, options.ranks, options.device);
  const MeasuredRates rates = Calibration(options, rank, id).Run();
  if (rank != 0) return {};
  std::printf("%s", RatesTable(rates).c_str());
  if (!options.out.empty()) WriteRates(options.out, rates);
  return {};
}

}  // namespace switchyard::trainer
