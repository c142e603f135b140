#include "coordinator/plan/memory_model.h"

#include <algorithm>

namespace switchyard::coordinator {

MemoryPlan PlanMemory(const RankMemoryInput& input, int64_t runtime_baseline_bytes) {
  const RankMemory memory = ComputeRankMemory(input);
  MemoryPlan plan;
  plan.activations = memory.activations;
  plan.categories = {{"parameters", memory.parameters},
                     {"gradients", memory.gradients},
                     {"optimizer", memory.optimizer},
                     {"saved_activations", memory.saved_activations},
                     {"workspace", memory.workspace + memory.deterministic_scratch},
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
  // Beside the model's files: two moments, and what the files' dtype loses of what is trained: a
  // 16-bit remainder beside bfloat16, a float32 master beside float16. The files' width is told by
  // their size: config.json may name another dtype.
  const int64_t parameters = model.NumParameters();
  const bool narrow_files = model_bytes < 3 * parameters;
  const bool trained_in_bfloat16 =
      precision == Precision::kBfloat16 && optimizer == OptimizerProfile::kCompact;
  const bool float16_files = narrow_files && model.torch_dtype == "float16";
  const int64_t moments = optimizer == OptimizerProfile::kCompact ? 4 : 8;
  const int64_t lost = float16_files ? 4 : narrow_files && !trained_in_bfloat16 ? 2 : 0;
  return model_bytes + (moments + lost) * parameters;
}

}  // namespace switchyard::coordinator
