// What devices were measured to do: the one table behind predicted speed and the runtime's memory
// baseline, and what `switchyard-trainer bench --calibrate` measured instead (rates_file.h).
//
// Every row says where its numbers come from, and plans repeat it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/rank_memory.h"

namespace switchyard::coordinator {

// Rates of one device: a GPU, or one core of a CPU. FLOPs a second, bytes a second, seconds.
struct DeviceRates {
  std::string name;
  double dense_flops = 0;              // GEMM of attention projections and head
  double expert_flops = 0;             // grouped GEMM
  double attention_forward_flops = 0;  // causal FLOPs counted once
  double attention_backward_flops = 0;
  double memory_bytes_per_second = 0;      // elementwise passes and optimizer
  double link_bytes_per_second = 0;        // to other ranks of the node, each direction
  double collective_bytes_per_second = 0;  // reduce-scatter and all-gather within the node
  double network_bytes_per_second = 0;     // to other nodes
  double layer_seconds = 0;    // fixed cost of one layer, forward and backward, a micro-batch
  double expert_seconds = 0;   // fixed cost of one local expert of a layer, a micro-batch
  double barrier_seconds = 0;  // one meeting of all ranks
  // What the host needs to enqueue a step, which the device cannot be faster than: for one layer
  // with its share of the update, for the rest of a micro-batch, and for one collective.
  double launch_layer_seconds = 0;
  double launch_rest_seconds = 0;
  double launch_collective_seconds = 0;
  int64_t runtime_baseline_bytes = 0;  // process before any model: libraries, context
  std::string source;                  // where the numbers were measured
  bool calibrated = false;             // on a device of this installation
};

// Of one product in one precision, by calibration.
struct CalibratedRates {
  DeviceKind device = DeviceKind::kCuda;
  std::string product;
  Precision precision = Precision::kBfloat16;
  DeviceRates rates;
};

// Rates of `product` ("NVIDIA H200"): those of `calibrated` when they name it, else of the nearest
// known device.
DeviceRates RatesFor(DeviceKind device, const std::string& product, Precision precision,
                     const std::vector<CalibratedRates>& calibrated = {});

}  // namespace switchyard::coordinator
