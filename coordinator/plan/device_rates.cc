#include "coordinator/plan/device_rates.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/units.h"

namespace switchyard::coordinator {
namespace {

// Library rates at Qwen3-30B-A3B's shapes, 4,096 tokens a GPU; link: 12 blocks of an own copy
// kernel. What the engine is slower at and what it overlaps cancel out: with these the whole steps
// in docs/performance.md, 1 and 2 GPUs, 4,096 to 16,384 tokens a GPU, are predicted within 9 %.
// The launch costs are of a calibration; the quickstart's model is bound by them.
DeviceRates H200() {
  DeviceRates rates;
  rates.name = "NVIDIA H200";
  rates.dense_flops = 650e12;
  rates.expert_flops = 620e12;
  rates.attention_forward_flops = 541e12;
  rates.attention_backward_flops = 436e12;
  rates.memory_bytes_per_second = 0.85 * 4.27e12;
  rates.link_bytes_per_second = 323e9;
  rates.collective_bytes_per_second = 323e9;
  rates.network_bytes_per_second = 40e9;  // 400 Gbit/s at 80 %
  rates.layer_seconds = 100e-6;
  rates.barrier_seconds = 25e-6;
  rates.launch_layer_seconds = 552e-6;
  rates.launch_rest_seconds = 277e-6;
  rates.launch_collective_seconds = 66e-6;
  // Used memory of the GPU beyond the arenas, 0.8 GiB alone and 2.2 with NCCL.
  rates.runtime_baseline_bytes = 2200 * kMiB;
  rates.source = "library kernels measured on 4 x H200, whole steps checked on 2";
  return rates;
}

// The same compute units; memory at 3.35 instead of 4.8 TB/s.
DeviceRates H100() {
  DeviceRates rates = H200();
  rates.name = "NVIDIA H100";
  rates.memory_bytes_per_second = 0.85 * 4.27e12 * 3.35 / 4.8;
  rates.source = "H200 rates scaled by memory speed";
  return rates;
}

// CPU time of `switchyard-trainer bench` on one core of a two-core x86 server (AVX-512,
// LibTorch 2.11), demo model of 10.8 M parameters (hidden size 192, 32 experts), 256 to 2,048
// tokens at once.
DeviceRates CpuCore(Precision precision) {
  DeviceRates rates;
  rates.name = "CPU core";
  rates.dense_flops = 100e9;
  rates.expert_flops = 60e9;
  rates.attention_forward_flops = 60e9;
  rates.attention_backward_flops = 60e9;
  rates.memory_bytes_per_second = 7e9;
  rates.link_bytes_per_second = 4e9;
  rates.collective_bytes_per_second = 4e9;
  rates.network_bytes_per_second = 1e9;
  rates.layer_seconds = 1.5e-3;
  rates.expert_seconds = 50e-6;
  rates.barrier_seconds = 200e-6;
  // Peak resident memory beyond the arenas: 116 to 150 MiB over meshes of 1, 2 and 4 ranks.
  rates.runtime_baseline_bytes = 135 * kMiB;
  rates.source = "a small model on a two-core x86 server";
  if (precision == Precision::kBfloat16) {
    // oneDNN keeps a compiled kernel for every shape it has met, and routing makes ever new ones.
    rates.runtime_baseline_bytes = 950 * kMiB;
  }
  return rates;
}

DeviceRates KnownRates(DeviceKind device, const std::string& product, Precision precision) {
  if (device == DeviceKind::kCpu) return CpuCore(precision);
  if (absl::StrContains(product, "H200")) return H200();
  DeviceRates rates = H100();
  if (!absl::StrContains(product, "H100")) {
    rates.source = absl::StrCat("rates of H100, as nothing is known of \"", product, "\"");
  }
  return rates;
}

}  // namespace

DeviceRates RatesFor(DeviceKind device, const std::string& product, Precision precision,
                     const std::vector<CalibratedRates>& calibrated) {
  for (const CalibratedRates& entry : calibrated) {
    if (entry.device == device && entry.product == product && entry.precision == precision)
      return entry.rates;
  }
  return KnownRates(device, product, precision);
}

}  // namespace switchyard::coordinator
