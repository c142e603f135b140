#include "coordinator/plan/memory_model.h"

#include <algorithm>

namespace switchyard::coordinator {

MemoryPlan PlanMemory(const RankMemoryInput& input, int64_t runtime_baseline_bytes) {
  const RankMemory memory = ComputeRankMemory(input);
  MemoryPlan plan;
  plan.categories = {
      {"parameters", memory.parameters}, {"gradients", memory.gradients},
      {"optimizer", memory.optimizer},   {"saved_activations", memory.saved_activations},
      {"workspace", memory.workspace},   {"windows", memory.windows},
      {"logits", memory.logits},         {"runtime_baseline", runtime_baseline_bytes}};
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
  // Beside the model's files: two moments, and a float32 master where the files' dtype holds less
  // than what is trained. The files' width is told by their size: config.json may name another
  // dtype.
  const int64_t parameters = model.NumParameters();
  const bool narrow_files = model_bytes < 3 * parameters;
  const bool trained_in_bfloat16 =
      precision == Precision::kBfloat16 && optimizer == OptimizerProfile::kCompact;
  const bool master = narrow_files && !(trained_in_bfloat16 && model.torch_dtype != "float16");
  const int64_t state = (optimizer == OptimizerProfile::kCompact ? 4 : 8) + (master ? 4 : 0);
  return model_bytes + state * parameters;
}

}  // namespace switchyard::coordinator
