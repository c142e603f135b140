// What the kernels for GPUs take (kernels/, attention's library): one list for the planner, which
// refuses a job by it, and for the trainer, which looks before it loads anything.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/model_shape.h"

namespace switchyard {

struct CudaLimits {
  static constexpr int64_t kVector = 8;                // elements that are read and written at once
  static constexpr int64_t kExpertWidthMultiple = 16;  // gate and up are interleaved by 16 rows
  static constexpr int64_t kMaxHidden = 8192;
  static constexpr int64_t kMaxHeadsWidth = 10'240;  // query and key heads of a token, elements
  static constexpr int64_t kMaxExperts = 512;
  static constexpr int64_t kMaxExpertsPerToken = 32;
  static constexpr int64_t kMaxExpertParallel = 8;
};

// Every violation of a shape as a sentence with the key of config.json, its value and the fix;
// empty when a GPU can train it.
std::vector<std::string> CudaShapeProblems(const ModelShape& shape);

}  // namespace switchyard
