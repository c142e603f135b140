// The experts' products of one MoE layer of Qwen3-30B-A3B beside at::_grouped_mm: TFLOP/s of each,
// taken in turns under continuous load (the power limit decides the clock), and whether the bytes
// agree.
//
//   grouped_gemm_bench [--rounds N] [L:R:even|skewed ...]
#include <ATen/core/Tensor.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/grouped_gemm.h"

namespace switchyard::trainer {
namespace {

using kernels::GroupedGemm;
using kernels::GroupedGemmShape;
using kernels::GroupedOutput;
using kernels::GroupedProduct;

constexpr int kHidden = 2048, kFfn = 768;
constexpr int kRepeats = 8;  // launches between two events

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <typename T>
T* Data(const at::Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

at::Tensor Random(at::IntArrayRef sizes, double scale = 1.0) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kBFloat16).device(at::kCUDA)).mul_(scale);
}

// One way to compute something: `run` launches it once.
struct Way {
  std::string name;
  std::function<void()> run;
  std::vector<double> seconds;
};

// Seconds of one run, from kRepeats in a row.
double Time(const std::function<void()>& run) {
  static cudaEvent_t start = nullptr, stop = nullptr;
  if (start == nullptr) {
    Check(cudaEventCreate(&start));
    Check(cudaEventCreate(&stop));
  }
  Check(cudaEventRecord(start));
  for (int i = 0; i < kRepeats; ++i) run();
  Check(cudaEventRecord(stop));
  Check(cudaEventSynchronize(stop));
  float milliseconds = 0;
  Check(cudaEventElapsedTime(&milliseconds, start, stop));
  return milliseconds * 1e-3 / kRepeats;
}

double Median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + v.size() / 2, v.end());
  return v[v.size() / 2];
}

std::vector<int32_t> Offsets(int experts, int rows, bool skewed) {
  std::mt19937 rng(7);
  std::normal_distribution<double> normal;
  std::vector<double> share(experts);
  double sum = 0;
  for (double& s : share) sum += s = skewed ? std::exp(normal(rng)) : 1.0;
  std::vector<int32_t> offset(1, 0);
  double at = 0;
  for (const double s : share) {
    at += s / sum * rows;
    offset.push_back(static_cast<int32_t>(std::lround(at)));
  }
  return offset;
}

// A product of ours and the same by at::_grouped_mm.
struct Product {
  std::string name;
  GroupedGemmShape shape;
  at::Tensor a, b, out, workspace;
  GroupedGemm gemm;
  std::function<at::Tensor()> torch;
};

void Run(int experts, int rows, bool skewed, int rounds) {
  const std::vector<int32_t> offsets = Offsets(experts, rows, skewed);
  const at::Tensor offset = at::tensor(offsets, at::kInt).to(at::kCUDA);
  const at::Tensor ends = offset.narrow(0, 1, experts);
  const at::Tensor x = Random({rows, kHidden}), h = Random({rows, kFfn});
  const at::Tensor grad_gate_up = Random({rows, 2 * kFfn}), grad_y = Random({rows, kHidden});
  const at::Tensor w_up = Random({experts, 2 * kFfn, kHidden}, 0.02);
  const at::Tensor w_down = Random({experts, kHidden, kFfn}, 0.02);
  std::vector<Product> products;
  const auto add = [&](const char* name, GroupedProduct product, GroupedOutput output,
                       const at::Tensor& a, const at::Tensor& b, int n, int k) {
    Product p{name, {product, output, experts, n, k}, a, b, {}, {}, {}, {}};
    const auto options = x.options();
    switch (product) {
      case GroupedProduct::kForward:
        p.out = at::empty({rows, n}, options);
        p.torch = [=] { return at::_grouped_mm(a, b.transpose(1, 2), ends); };
        break;
      case GroupedProduct::kTransposed:
        p.out = at::empty({rows, k}, options);
        p.torch = [=] { return at::_grouped_mm(a, b, ends); };
        break;
      case GroupedProduct::kWeightGradient:
        p.out = at::zeros({experts, n, k},
                          output == GroupedOutput::kBfloat16 ? options : options.dtype(at::kFloat));
        p.torch = [=] { return at::_grouped_mm(a.t(), b, ends); };
        if (output == GroupedOutput::kFloat32Add) {
          p.torch = [=, sum = at::zeros_like(p.out)]() mutable {
            return sum.add_(at::_grouped_mm(a.t(), b, ends));
          };
        }
        break;
    }
    p.workspace =
        at::empty({kernels::GroupedGemmWorkspaceBytes(p.shape)}, options.dtype(at::kByte));
    Check(p.gemm.Build(p.shape, p.workspace.data_ptr()));
    products.push_back(std::move(p));
  };
  using P = GroupedProduct;
  using O = GroupedOutput;
  add("up forward", P::kForward, O::kBfloat16, x, w_up, 2 * kFfn, kHidden);
  add("down forward", P::kForward, O::kBfloat16, h, w_down, kHidden, kFfn);
  add("dX down", P::kTransposed, O::kBfloat16, grad_y, w_down, kHidden, kFfn);
  add("dX up", P::kTransposed, O::kBfloat16, grad_gate_up, w_up, 2 * kFfn, kHidden);
  add("dW down", P::kWeightGradient, O::kBfloat16, grad_y, h, kHidden, kFfn);
  add("dW up", P::kWeightGradient, O::kBfloat16, grad_gate_up, x, 2 * kFfn, kHidden);
  add("dW down f32 set", P::kWeightGradient, O::kFloat32, grad_y, h, kHidden, kFfn);
  add("dW up f32 set", P::kWeightGradient, O::kFloat32, grad_gate_up, x, 2 * kFfn, kHidden);
  const auto prepare = [&](size_t first, size_t count) {
    kernels::PrepareGroupedGemmsParams params{
        {}, static_cast<int32_t>(count), Data<int32_t>(offset), rows};
    for (size_t i = 0; i < count; ++i) {
      Product& p = products[first + i];
      params.calls[i] = {&p.gemm, Data<nv_bfloat16>(p.a), Data<nv_bfloat16>(p.b), p.out.data_ptr()};
    }
    Check(kernels::PrepareGroupedGemms(params, nullptr));
  };
  prepare(0, products.size());
  const size_t plain = products.size();
  add("dW down f32 add", P::kWeightGradient, O::kFloat32Add, grad_y, h, kHidden, kFfn);
  add("dW up f32 add", P::kWeightGradient, O::kFloat32Add, grad_gate_up, x, 2 * kFfn, kHidden);
  prepare(plain, 2);

  std::printf("\nL %d, R %d, %s\n%-18s %8s %8s %7s   %s\n", experts, rows,
              skewed ? "skewed" : "even", "TFLOP/s", "torch", "ours", "ratio", "bytes");
  std::vector<std::pair<Way, Way>> ways;
  for (Product& p : products) {
    ways.push_back(
        {{"torch", [&p] { p.torch(); }, {}}, {"ours", [&p] { Check(p.gemm.Run(nullptr)); }, {}}});
  }
  // All six of a step, and with fewer multiprocessors.
  const auto ours = [&](int sms) {
    return [&, sms] {
      for (int i = 0; i < 6; ++i) Check(products[i].gemm.Run(nullptr, sms));
    };
  };
  ways.push_back({{"torch",
                   [&] {
                     for (int i = 0; i < 6; ++i) products[i].torch();
                   },
                   {}},
                  {"ours", [&] { prepare(0, 2), prepare(2, 4), ours(0)(); }, {}}});
  ways.push_back({{"124 SMs", ours(124), {}}, {"132 SMs", ours(0), {}}});
  ways.push_back({{"116 SMs", ours(116), {}}, {"128 SMs", ours(128), {}}});
  ways.push_back(
      {{"prepare 2", [&] { prepare(0, 2); }, {}}, {"prepare 4", [&] { prepare(2, 4); }, {}}});
  for (int round = -1; round < rounds; ++round) {  // the first heats up
    for (auto& [first, second] : ways) {
      for (Way* way :
           round % 2 == 0 ? std::vector{&first, &second} : std::vector{&second, &first}) {
        const double seconds = Time(way->run);
        if (round >= 0) way->seconds.push_back(seconds);
      }
    }
  }
  for (size_t i = 0; i < ways.size(); ++i) {
    const double t0 = Median(ways[i].first.seconds), t1 = Median(ways[i].second.seconds);
    if (i >= products.size()) {
      std::printf("%-9s %7.3f ms, %-9s %7.3f ms, %.3f\n", ways[i].first.name.c_str(), t0 * 1e3,
                  ways[i].second.name.c_str(), t1 * 1e3, t0 / t1);
      continue;
    }
    Product& p = products[i];
    const double flop = 2.0 * rows * p.shape.out_features * p.shape.in_features * 1e-12;
    std::string bytes;
    if (p.shape.output == O::kBfloat16) {
      bytes = at::equal(p.torch(), p.out) ? "equal" : "DIFFER";
    } else if (p.shape.output == O::kFloat32) {
      const at::Tensor bf16 = p.torch();
      bytes = at::equal(bf16, p.out.to(at::kBFloat16)) ? "equal" : "DIFFER";
    }
    std::printf("%-18s %8.0f %8.0f %7.3f   %s\n", p.name.c_str(), flop / t0, flop / t1, t0 / t1,
                bytes.c_str());
  }
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  int rounds = 15;
  std::vector<std::string> cases;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--rounds" && i + 1 < argc) {
      rounds = std::atoi(argv[++i]);
    } else {
      cases.push_back(argv[i]);
    }
  }
  if (cases.empty()) {
    cases = {"128:32768:even", "128:32768:skewed", "64:32768:even",   "64:65536:even",
             "64:131072:even", "64:65536:skewed",  "32:32768:skewed", "32:32768:even"};
  }
  for (const std::string& c : cases) {
    int experts = 0, rows = 0;
    char routing[16] = "";
    if (std::sscanf(c.c_str(), "%d:%d:%15s", &experts, &rows, routing) != 3 || experts < 1 ||
        rows < 1) {
      std::fprintf(stderr, "bad case '%s': write experts:rows:even or experts:rows:skewed\n",
                   c.c_str());
      return 2;
    }
    Run(experts, rows, std::string(routing) == "skewed", std::max(rounds, 1));
  }
  return 0;
}

}  // namespace
}  // namespace switchyard::trainer

int main(int argc, char** argv) { return switchyard::trainer::Main(argc, argv); }
