// What devices were measured to do: the one table behind predicted speed and the runtime's memory
// baseline.
//
// Every row says where its numbers come from, and plans repeat it.
#pragma once

#include <cstdint>
#include <string>

#include "common/model/rank_memory.h"

namespace switchyard::coordinator {

// Rates of one device: a GPU, or one core of a CPU. FLOPs a second, bytes a second, seconds.
struct DeviceRates {
  std::string name;
  double dense_flops = 0;              // GEMM of attention projections and head
  double expert_flops = 0;             // grouped GEMM
  double attention_forward_flops = 0;  // causal FLOPs counted once
  double attention_backward_flops = 0;
  double memory_bytes_per_second = 0;   // elementwise passes and optimizer
  double link_bytes_per_second = 0;     // to other ranks of the node, each direction
  double network_bytes_per_second = 0;  // to other nodes
  double layer_seconds = 0;    // fixed cost of one layer, forward and backward, a micro-batch
  double expert_seconds = 0;   // fixed cost of one local expert of a layer, a micro-batch
  double barrier_seconds = 0;  // one meeting of all ranks
  int64_t runtime_baseline_bytes = 0;  // process before any model: libraries, context
  std::string source;                  // where the numbers were measured
};

// Rates of `product` ("NVIDIA H200"), or of the nearest known device.
DeviceRates RatesFor(DeviceKind device, const std::string& product, Precision precision);

}  // namespace switchyard::coordinator
