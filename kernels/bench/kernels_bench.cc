// Every kernel at the shapes of Qwen3-30B-A3B: time, bytes, GB/s, and the share of the device's
// measured copy rate: of a large copy (of_copy) and of one that moves as many bytes (of_same_copy).
//
//   kernels_bench [--benchmark_filter=REGEX]
//
// Bytes are what each launcher's comment says it must move. Working sets are larger than L2 unless
// the name ends in "/4096" (one sequence, as in training).
#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding_gradient.h"
#include "kernels/qk_norm_rope.h"
#include "kernels/reference/bf16.h"
#include "kernels/rms_norm.h"
#include "kernels/router.h"
#include "kernels/routing.h"
#include "kernels/sum_of_squares.h"
#include "kernels/swiglu.h"

namespace switchyard::kernels {
namespace {

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <typename T>
struct Freed {
  void operator()(T* p) const { cudaFree(p); }
};
template <typename T>
using DevicePtr = std::unique_ptr<T, Freed<T>>;

template <typename T>
DevicePtr<T> Upload(const std::vector<T>& values) {
  T* p = nullptr;
  Check(cudaMalloc(reinterpret_cast<void**>(&p), values.size() * sizeof(T)));
  Check(cudaMemcpy(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return DevicePtr<T>(p);
}

// n values with a normal distribution: one million drawn, then repeated.
DevicePtr<nv_bfloat16> Normal(int64_t n) {
  static const std::vector<nv_bfloat16> drawn = [] {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<nv_bfloat16> values(1 << 20);
    for (auto& v : values) v = ToBf16(normal(rng));
    return values;
  }();
  std::vector<nv_bfloat16> values(n);
  for (int64_t i = 0; i < n; ++i) values[i] = drawn[i & (drawn.size() - 1)];
  return Upload(values);
}

template <typename T>
DevicePtr<T> Zeros(int64_t n) {
  T* p = nullptr;
  Check(cudaMalloc(reinterpret_cast<void**>(&p), n * sizeof(T)));
  Check(cudaMemset(p, 0, n * sizeof(T)));
  return DevicePtr<T>(p);
}

// Times `launch` by events; each iteration is kBatch launches, so that launch gaps are as in a
// training step.
double Seconds(const std::function<cudaError_t()>& launch, int batch) {
  static cudaEvent_t start = nullptr, stop = nullptr;
  if (start == nullptr) {
    Check(cudaEventCreate(&start));
    Check(cudaEventCreate(&stop));
  }
  Check(cudaEventRecord(start));
  for (int i = 0; i < batch; ++i) Check(launch());
  Check(cudaEventRecord(stop));
  Check(cudaEventSynchronize(stop));
  float milliseconds = 0;
  Check(cudaEventElapsedTime(&milliseconds, start, stop));
  return milliseconds * 1e-3 / batch;
}

// Bytes per second of a device copy that moves `bytes` in all, half of them read and half written.
double CopyRate(double bytes) {
  static std::map<double, double> known;
  double& rate = known[bytes];
  if (rate != 0) return rate;
  const auto half = static_cast<int64_t>(bytes / 2);
  auto from = Zeros<char>(half), to = Zeros<char>(half);
  const auto copy = [&] {
    return cudaMemcpyAsync(to.get(), from.get(), half, cudaMemcpyDeviceToDevice);
  };
  Seconds(copy, 3);
  std::vector<double> seconds(9);
  for (double& s : seconds) s = Seconds(copy, 10);
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return rate = bytes / seconds[seconds.size() / 2];
}

// Of a copy of 1 GiB.
double LargeCopyRate() { return CopyRate(2.0 * (1 << 30)); }

void Run(benchmark::State& state, double bytes, const std::function<cudaError_t()>& launch) {
  const double large_rate = LargeCopyRate(), same_rate = CopyRate(bytes);
  Seconds(launch, 3);
  double seconds = 0;
  for (auto _ : state) {
    const double s = Seconds(launch, 10);
    state.SetIterationTime(s);
    seconds += s;
  }
  const double rate = bytes / (seconds / static_cast<double>(state.iterations()));
  state.counters["MB"] = bytes * 1e-6;
  state.counters["GB/s"] = rate * 1e-9;
  state.counters["of_copy"] = rate / large_rate;
  state.counters["of_same_copy"] = rate / same_rate;
}

constexpr int kHidden = 2048, kHeads = 32, kKvHeads = 4, kHeadDim = 128, kExperts = 128, kTopK = 8,
              kFfn = 768, kVocab = 151'936;

void RmsNormForward(benchmark::State& state) {
  const int64_t tokens = state.range(0), n = tokens * kHidden;
  auto x = Normal(n), gamma = Normal(kHidden), y = Normal(n);
  const RmsNormForwardParams p{x.get(), gamma.get(), y.get(), tokens, kHidden, 1e-6f};
  Run(state, 4.0 * n, [&] { return kernels::RmsNormForward(p, nullptr); });
}

void RmsNormBackward(benchmark::State& state) {
  const int64_t tokens = state.range(0), n = tokens * kHidden;
  auto x = Normal(n), grad = Normal(n), residual = Normal(n), out = Normal(n),
       gamma = Normal(kHidden), grad_gamma = Normal(kHidden);
  auto workspace = Zeros<char>(RmsNormBackwardWorkspaceBytes(kHidden));
  const RmsNormBackwardParams p{x.get(),        gamma.get(), grad.get(),
                                residual.get(), out.get(),   grad_gamma.get(),
                                tokens,         kHidden,     1e-6f};
  Run(state, 8.0 * n, [&] { return kernels::RmsNormBackward(p, workspace.get(), nullptr); });
}

struct Rope {
  explicit Rope(int64_t tokens)
      : qkv(Normal(tokens * (kHeads + 2 * kKvHeads) * kHeadDim)),
        qk(Normal(tokens * (kHeads + kKvHeads) * kHeadDim)),
        grad_key(Normal(tokens * kKvHeads * kHeadDim)),
        grad_qkv(Normal(tokens * (kHeads + 2 * kKvHeads) * kHeadDim)),
        gamma(Normal(kHeadDim)),
        grad_gamma(Normal(2 * kHeadDim)),
        table(Zeros<float2>(4096 * kHeadDim / 2)) {
    std::vector<int32_t> positions(tokens);
    for (int64_t t = 0; t < tokens; ++t) positions[t] = t % 4096;
    position = Upload(positions);
    Check(FillRopeTable(table.get(), 4096, kHeadDim, 1e6, nullptr));
  }
  DevicePtr<nv_bfloat16> qkv, qk, grad_key, grad_qkv, gamma, grad_gamma;
  DevicePtr<float2> table;
  DevicePtr<int32_t> position;
};

void QkNormRopeForward(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  Rope r(tokens);
  const QkNormRopeForwardParams p{r.qkv.get(),   r.gamma.get(), r.gamma.get(), r.position.get(),
                                  r.table.get(), r.qk.get(),    tokens,        kHeads,
                                  kKvHeads,      kHeadDim,      1e-6f};
  Run(state, 4.0 * tokens * (kHeads + kKvHeads) * kHeadDim,
      [&] { return kernels::QkNormRopeForward(p, nullptr); });
}

void QkNormRopeBackward(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  Rope r(tokens);
  auto value = Normal(tokens * kKvHeads * kHeadDim);
  auto workspace = Zeros<char>(QkNormRopeBackwardWorkspaceBytes(kHeadDim));
  const QkNormRopeBackwardParams p{r.qkv.get(),
                                   r.gamma.get(),
                                   r.gamma.get(),
                                   r.position.get(),
                                   r.table.get(),
                                   r.qk.get(),
                                   r.grad_key.get(),
                                   value.get(),
                                   r.grad_qkv.get(),
                                   r.grad_gamma.get(),
                                   r.grad_gamma.get() + kHeadDim,
                                   tokens,
                                   (kHeads + kKvHeads) * kHeadDim,
                                   kHeads,
                                   kKvHeads,
                                   kHeadDim,
                                   1e-6f};
  Run(state, tokens * (6.0 * (kHeads + kKvHeads) + 4.0 * kKvHeads) * kHeadDim,
      [&] { return kernels::QkNormRopeBackward(p, workspace.get(), nullptr); });
}

void SwigluForward(benchmark::State& state) {
  const int64_t rows = state.range(0), n = rows * kFfn;
  auto gate_up = Normal(2 * n), h = Normal(n);
  auto weight = Zeros<float>(rows);
  const SwigluForwardParams p{gate_up.get(), weight.get(), h.get(), rows, nullptr, kFfn};
  Run(state, 6.0 * n, [&] { return kernels::SwigluForward(p, nullptr); });
}

void SwigluBackward(benchmark::State& state) {
  const int64_t rows = state.range(0), n = rows * kFfn;
  auto gate_up = Normal(2 * n), grad_h = Normal(n), grad = Normal(2 * n), h = Normal(n);
  auto weight = Zeros<float>(rows), grad_weight = Zeros<float>(rows);
  const SwigluBackwardParams p{gate_up.get(),     weight.get(), grad_h.get(), grad.get(), h.get(),
                               grad_weight.get(), rows,         nullptr,      kFfn};
  Run(state, 12.0 * n, [&] { return kernels::SwigluBackward(p, nullptr); });
}

struct Routed {
  explicit Routed(int64_t tokens)
      : logits(Normal(tokens * kExperts)),
        expert(Zeros<int32_t>(tokens * kTopK)),
        count(Zeros<int32_t>(kExperts)),
        weight(Zeros<float>(tokens * kTopK)),
        probability(Zeros<float>(kExperts)),
        workspace(Zeros<char>(RouterForwardWorkspaceBytes(kExperts))) {
    forward = {logits.get(), nullptr, expert.get(), weight.get(), count.get(), probability.get(),
               nullptr,      tokens,  kExperts,     kTopK,        true};
    Check(kernels::RouterForward(forward, workspace.get(), nullptr));
  }
  DevicePtr<nv_bfloat16> logits;
  DevicePtr<int32_t> expert, count;
  DevicePtr<float> weight, probability;
  DevicePtr<char> workspace;
  RouterForwardParams forward;
};

void RouterForward(benchmark::State& state) {
  Routed r(state.range(0));
  Run(state, 2.0 * state.range(0) * kExperts,
      [&] { return kernels::RouterForward(r.forward, r.workspace.get(), nullptr); });
}

void RouterBackward(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  Routed r(tokens);
  auto grad = Normal(tokens * kExperts);
  const RouterBackwardParams p{
      r.logits.get(), nullptr, r.expert.get(), r.weight.get(), r.probability.get(),
      grad.get(),     tokens,  kExperts,       kTopK,          true};
  Run(state, 4.0 * tokens * kExperts, [&] { return kernels::RouterBackward(p, nullptr); });
}

struct Rows {
  explicit Rows(int64_t tokens)
      : routed(tokens),
        offset(Zeros<int32_t>(kExperts + 1)),
        row(Zeros<int32_t>(tokens * kTopK)),
        row_weight(Zeros<float>(tokens * kTopK)) {
    params = {routed.expert.get(),
              routed.weight.get(),
              offset.get(),
              row.get(),
              row_weight.get(),
              tokens,
              0,
              kExperts,
              kTopK};
    workspace = Zeros<char>(RoutingWorkspaceBytes(params));
    Check(kernels::BuildRouting(params, workspace.get(), nullptr));
  }
  Routed routed;
  DevicePtr<int32_t> offset, row;
  DevicePtr<float> row_weight;
  DevicePtr<char> workspace;
  RoutingParams params;
};

void BuildRouting(benchmark::State& state) {
  Rows r(state.range(0));
  Run(state, 16.0 * state.range(0) * kTopK,
      [&] { return kernels::BuildRouting(r.params, r.workspace.get(), nullptr); });
}

void ScatterRows(benchmark::State& state) {
  const int64_t tokens = state.range(0), rows = tokens * kTopK;
  Rows r(tokens);
  auto x = Normal(tokens * kHidden), out = Normal(rows * kHidden);
  const ScatterRowsParams p{x.get(), r.row.get(), out.get(), tokens, kHidden, kTopK};
  Run(state, 2.0 * (rows + tokens) * kHidden, [&] { return kernels::ScatterRows(p, nullptr); });
}

void CombineRows(benchmark::State& state) {
  const int64_t tokens = state.range(0), rows = tokens * kTopK;
  Rows r(tokens);
  auto y = Normal(tokens * kHidden), in = Normal(rows * kHidden);
  const CombineRowsParams p{in.get(), r.row.get(), nullptr, y.get(), tokens, kHidden, kTopK};
  Run(state, 2.0 * (rows + tokens) * kHidden, [&] { return kernels::CombineRows(p, nullptr); });
}

void CrossEntropy(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  auto logits = Normal(tokens * kVocab);
  auto target = Zeros<int64_t>(tokens);
  auto loss = Zeros<float>(tokens);
  const CrossEntropyParams p{logits.get(), target.get(), loss.get(), tokens, kVocab, 1.0f};
  Run(state, 4.0 * tokens * kVocab, [&] { return CrossEntropyInPlace(p, nullptr); });
}

// Ids of a batch: any one as likely as another, or as words are, the i-th most frequent 1 / i.
std::vector<int64_t> DrawIds(int64_t tokens, bool like_text) {
  std::mt19937 rng(2);
  std::uniform_real_distribution<double> uniform;
  std::vector<int64_t> ids(tokens);
  for (int64_t& id : ids) {
    const double u = uniform(rng);
    id = static_cast<int64_t>(like_text ? std::pow(kVocab, u) - 1 : u * kVocab);
  }
  return ids;
}

void SortTokens(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  auto id = Upload(DrawIds(tokens, false));
  auto sorted_id = Zeros<int32_t>(tokens), token = Zeros<int32_t>(tokens);
  auto workspace = Zeros<char>(SortTokensWorkspaceBytes(tokens, kVocab));
  const SortTokensParams p{id.get(), sorted_id.get(), token.get(), tokens, kVocab};
  Run(state, 16.0 * tokens, [&] { return kernels::SortTokens(p, workspace.get(), nullptr); });
}

template <bool kLikeText>
void EmbeddingGradient(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  std::vector<int64_t> ids = DrawIds(tokens, kLikeText);
  const auto distinct = static_cast<double>(std::set<int64_t>(ids.begin(), ids.end()).size());
  auto id = Upload(ids);
  auto sorted_id = Zeros<int32_t>(tokens), token = Zeros<int32_t>(tokens);
  auto workspace = Zeros<char>(SortTokensWorkspaceBytes(tokens, kVocab));
  Check(kernels::SortTokens({id.get(), sorted_id.get(), token.get(), tokens, kVocab},
                            workspace.get(), nullptr));
  auto grad = Normal(tokens * kHidden),
       table = Zeros<nv_bfloat16>(static_cast<int64_t>(kVocab) * kHidden);
  auto parts = Zeros<char>(EmbeddingGradientWorkspaceBytes(tokens, kHidden));
  EmbeddingGradientParams p{};
  p.sorted_id_T = sorted_id.get(), p.token_T = token.get(), p.grad_y_TD = grad.get();
  p.grad_table_VD = table.get(), p.end_element = static_cast<int64_t>(kVocab) * kHidden;
  p.skipped_id = -1, p.num_tokens = tokens, p.hidden = kHidden;
  Run(state, 2.0 * (static_cast<double>(tokens) + distinct) * kHidden,
      [&] { return kernels::EmbeddingGradient(p, parts.get(), nullptr); });
}

void SumOfSquares(benchmark::State& state) {
  const int64_t n = state.range(0);
  auto x = Normal(n);
  auto sum = Zeros<double>(1);
  auto workspace = Zeros<char>(SumOfSquaresWorkspaceBytes());
  const SumOfSquaresParams p{x.get(), nullptr, n, sum.get(), false};
  Run(state, 2.0 * n, [&] { return kernels::SumOfSquares(p, workspace.get(), nullptr); });
}

template <bool kCompact>
void Adamw(benchmark::State& state) {
  const int64_t n = state.range(0);
  auto weight = Normal(n), grad = Normal(n), m16 = Normal(kCompact ? n : 8),
       v16 = Zeros<nv_bfloat16>(kCompact ? n : 8);
  auto remainder = Zeros<int16_t>(kCompact ? 8 : n);
  auto m = Zeros<float>(kCompact ? 8 : n), v = Zeros<float>(kCompact ? 8 : n);
  auto scalars = Upload(std::vector<AdamwScalars>{{1.0f, 0, 0.1f, 1e-3f, 1, 1.0f}});
  auto segments =
      Upload(std::vector<AdamwSegment>{{0, 0, 1, 0.1f}, {4096, 0, 2, 0.0f}, {8192, 0, 3, 0.1f}});
  AdamwParams p{};
  p.weight = weight.get(), p.remainder = remainder.get(), p.exp_avg = m.get(),
  p.exp_avg_sq = v.get();
  p.compact_exp_avg = m16.get(), p.compact_exp_avg_sq = v16.get(), p.grad = grad.get(), p.numel = n;
  p.segments = segments.get(), p.num_segments = 3, p.scalars = scalars.get();
  p.learning_rate = 1e-5f, p.beta1 = 0.9f, p.beta2 = 0.999f, p.eps = 1e-8f;
  Run(state, (kCompact ? 14.0 : 26.0) * n,
      [&] { return kCompact ? AdamwCompact(p, nullptr) : AdamwExact(p, nullptr); });
}

#define SWITCHYARD_BENCH(function, ...) \
  BENCHMARK(function)->UseManualTime()->MinTime(0.1)->Unit(benchmark::kMicrosecond) __VA_ARGS__
SWITCHYARD_BENCH(RmsNormForward, ->Arg(4096)->Arg(32768));
SWITCHYARD_BENCH(RmsNormBackward, ->Arg(4096)->Arg(32768));
SWITCHYARD_BENCH(QkNormRopeForward, ->Arg(4096)->Arg(16384));
SWITCHYARD_BENCH(QkNormRopeBackward, ->Arg(4096)->Arg(16384));
SWITCHYARD_BENCH(RouterForward, ->Arg(4096)->Arg(16384));
SWITCHYARD_BENCH(RouterBackward, ->Arg(4096)->Arg(16384));
SWITCHYARD_BENCH(BuildRouting, ->Arg(4096)->Arg(16384));
SWITCHYARD_BENCH(ScatterRows, ->Arg(4096)->Arg(16384));
SWITCHYARD_BENCH(CombineRows, ->Arg(4096)->Arg(16384));
SWITCHYARD_BENCH(SwigluForward, ->Arg(32768)->Arg(131072));
SWITCHYARD_BENCH(SwigluBackward, ->Arg(32768)->Arg(131072));
SWITCHYARD_BENCH(CrossEntropy, ->Arg(4096));
SWITCHYARD_BENCH(SortTokens, ->Arg(4096)->Arg(32768));
SWITCHYARD_BENCH(EmbeddingGradient<false>, ->Arg(4096)->Arg(16384)->Arg(32768));
SWITCHYARD_BENCH(EmbeddingGradient<true>, ->Arg(4096)->Arg(16384)->Arg(32768));
SWITCHYARD_BENCH(SumOfSquares, ->Arg(300'000'000));
SWITCHYARD_BENCH(Adamw<false>, ->Arg(300'000'000));
SWITCHYARD_BENCH(Adamw<true>, ->Arg(300'000'000));

}  // namespace
}  // namespace switchyard::kernels

int main(int argc, char** argv) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::printf("no GPU on this machine: nothing to measure\n");
    return 0;
  }
  cudaDeviceProp properties;
  switchyard::kernels::Check(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, copy %.0f GB/s\n", properties.name, switchyard::kernels::LargeCopyRate() * 1e-9);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
