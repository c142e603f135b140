#include "coordinator/plan/memory_model.h"

#include <algorithm>

namespace switchyard::coordinator {

MemoryPlan PlanMemory(const RankMemoryInput& input, int64_t runtime_baseline_bytes) {
  const RankMemory memory = ComputeRankMemory(input);
  MemoryPlan plan;
  plan.categories = {{"parameters", memory.parameters},
                     {"gradients", memory.gradients},
                     {"optimizer", memory.optimizer},
                     {"saved_activations", memory.saved_activations},
                     {"workspace", memory.workspace},
                     {"windows", memory.windows},
                     {"logits", memory.logits},
                     {"runtime_baseline", runtime_baseline_bytes}};
  for (const auto& [name, bytes] : plan.categories) {
    plan.total_bytes = std::min(kTooManyBytes, plan.total_bytes + bytes);
  }
  return plan;
}

bool FitsWithMargin(int64_t needed, int64_t capacity) {
  return static_cast<double>(needed) <= static_cast<double>(capacity) * (1 - kMemoryMargin);
}

int64_t CheckpointBytes(const ModelShape& model, int64_t model_bytes, Precision precision,
                        OptimizerProfile optimizer) {
  // Bytes a parameter beside the model's files: two moments, and the 16-bit remainder of the master under
  // bfloat16. Under float32 the model's files hold the master itself unless they are 16 bits wide.
  int64_t state = optimizer == OptimizerProfile::kCompact ? 4 : 8;
  if (optimizer == OptimizerProfile::kExact && precision == Precision::kBfloat16) state += 2;
  const bool narrow_files = model.torch_dtype == "bfloat16" || model.torch_dtype == "float16";
  if (precision == Precision::kFloat32 && narrow_files) state += 4;
  return model_bytes + state * model.NumParameters();
}

}  // namespace switchyard::coordinator
