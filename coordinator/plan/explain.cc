#include "coordinator/plan/explain.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/model/cuda_limits.h"
#include "common/units.h"
#include "coordinator/plan/placement.h"

namespace switchyard::coordinator {
namespace {

constexpr size_t kMaxRejected = 12;

std::string Bytes(int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }

int64_t UsableBytes(int64_t capacity) {
  return static_cast<int64_t>(static_cast<double>(capacity) * (1 - kMemoryMargin));
}

// "optimizer 41.2 GiB, parameters 7.10 GiB, saved_activations 3.00 GiB"
std::string LargestParts(const MemoryPlan& memory) {
  auto parts = memory.categories;
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  parts.resize(std::min<size_t>(parts.size(), 3));
  return absl::StrJoin(parts, ", ", [](std::string* out, const auto& part) {
    absl::StrAppend(out, part.first, " ", Bytes(part.second));
  });
}

std::string Shape(const Candidate& candidate) {
  return absl::StrCat("ranks ", candidate.ranks, ", expert_parallel ", candidate.expert_parallel,
                      ", micro_batch_sequences ", candidate.micro_batch, ", activation_memory ",
                      ActivationMemoryName(candidate.memory.activations));
}

std::string SlotsByNode(const PlanInput& input, const std::string& device) {
  std::map<std::string, int> counts;
  for (const PlannerSlot& slot : input.slots) {
    if (slot.device == device) ++counts[slot.node];
  }
  std::vector<std::string> texts;
  for (const auto& [node, count] : counts) {
    if (texts.size() == 8) {
      texts.push_back(absl::StrCat("and ", counts.size() - 8, " nodes more"));
      break;
    }
    texts.push_back(absl::StrCat(node, " ", count));
  }
  return absl::StrJoin(texts, ", ");
}

int CountSlots(const PlanInput& input, const std::string& device) {
  return static_cast<int>(std::count_if(input.slots.begin(), input.slots.end(),
                                        [&](const auto& slot) { return slot.device == device; }));
}

std::string ExplainSlots(const PlanInput& input, const ResolvedJob& job) {
  const int total = CountSlots(input, job.device);
  const int ranks = job.spec.mesh().ranks();
  if (total == 0) {
    return job.device == "cuda" ? "no cuda slot is connected; start an agent on a machine with "
                                  "GPUs, or set mesh.device to "
                                  "\"cpu\""
                                : "no cpu slot is connected; start an agent with --cpu-slots, or "
                                  "set mesh.device to \"cuda\"";
  }
  if (ranks > total) {
    return absl::StrCat("mesh.ranks is ", ranks, " but only ", total, " ", job.device,
                        total == 1 ? " slot is connected (" : " slots are connected (",
                        SlotsByNode(input, job.device),
                        "); lower mesh.ranks or start agents with more slots");
  }
  const int usable = UsableSlots(input, job);
  if (job.device == "cpu" && ranks > usable) {
    return absl::StrCat("mesh.ranks is ", ranks,
                        " but CPU ranks of one job must share a memory domain and the "
                        "largest has ",
                        usable, usable == 1 ? " slot (" : " slots (",
                        SlotsByNode(input, job.device),
                        "); lower mesh.ranks or start the agents on one machine");
  }
  return "";
}

std::string ExplainExpertParallel(const PlanInput& input, const ResolvedJob& job) {
  const int asked = job.spec.mesh().expert_parallel();
  const auto experts = static_cast<int>(input.model.num_experts);
  if (asked <= 0) return "";
  if (experts == 0 && asked != 1) {
    return absl::StrCat("mesh.expert_parallel is ", asked, "; must be 1, the model has no experts");
  }
  if (experts > 0 && experts % asked != 0) {
    return absl::StrCat("mesh.expert_parallel is ", asked,
                        "; must divide the model's number of experts (", experts, ")");
  }
  if (job.device_kind == DeviceKind::kCuda && asked > CudaLimits::kMaxExpertParallel) {
    return absl::StrCat("mesh.expert_parallel is ", asked, "; must be at most ",
                        CudaLimits::kMaxExpertParallel, " on GPUs");
  }
  const int ranks = job.spec.mesh().ranks();
  if (ranks > 0 && ranks % asked != 0) {
    return absl::StrCat("mesh.expert_parallel is ", asked, "; must divide mesh.ranks (", ranks,
                        ")");
  }
  const int usable = UsableSlots(input, job);
  if (ranks == 0 && asked > usable) {
    return absl::StrCat("mesh.expert_parallel is ", asked, " but a mesh can have at most ", usable,
                        " ", job.device, usable == 1 ? " rank" : " ranks",
                        " here; lower it or add slots");
  }
  if (ranks == 0 && asked > job.global_batch) {
    return absl::StrCat("mesh.expert_parallel is ", asked,
                        "; must be at most "
                        "training.global_batch_sequences (",
                        job.global_batch, "), or some ranks would never have data");
  }
  return "";
}

std::string ExplainCandidate(const PlanInput& input, const ResolvedJob& job,
                             const Candidate& closest) {
  if (closest.verdict == Verdict::kCannotBePlaced) {
    std::map<std::string, int> nodes;
    for (const PlannerSlot& slot : input.slots) {
      if (slot.device == job.device) ++nodes[PlacementGroup(slot)];
    }
    int largest = 0;
    for (const auto& [node, count] : nodes) largest = std::max(largest, count);
    return absl::StrCat("an expert-parallel group of ", closest.expert_parallel,
                        " ranks must lie on one node, and ", closest.ranks,
                        " such ranks do not fit on these nodes (", SlotsByNode(input, job.device),
                        "; the largest has ", largest,
                        "); lower mesh.expert_parallel or mesh.ranks");
  }
  return absl::StrCat("no choice fits: the smallest (", Shape(closest), ") needs ",
                      Bytes(closest.memory.total_bytes), " a rank, but of ",
                      Bytes(closest.capacity_bytes), " only ",
                      Bytes(UsableBytes(closest.capacity_bytes)),
                      " may be used (largest parts: ", LargestParts(closest.memory), ")");
}

v1::PlanAlternative MakeAlternative(const ResolvedJob& job, const Candidate& candidate,
                                    const Candidate& chosen) {
  v1::PlanAlternative alternative;
  alternative.set_ranks(candidate.ranks);
  alternative.set_expert_parallel(candidate.expert_parallel);
  alternative.set_micro_batch_sequences(static_cast<int32_t>(candidate.micro_batch));
  alternative.set_memory_bytes_per_rank(candidate.memory.total_bytes);
  const char* activations = ActivationMemoryName(candidate.memory.activations);
  alternative.set_activation_memory(activations);
  switch (candidate.verdict) {
    case Verdict::kFits: {
      const double ratio = candidate.tokens_per_second / chosen.tokens_per_second;
      alternative.set_tokens_per_second(candidate.tokens_per_second);
      alternative.set_reason_code("SLOWER");
      alternative.set_reason(absl::StrFormat(
          "%s: predicted %s tokens/s, %.1f %% less than %s", activations,
          FormatGrouped(std::llround(candidate.tokens_per_second)), 100 * (1 - ratio),
          FormatGrouped(std::llround(chosen.tokens_per_second))));
      break;
    }
    case Verdict::kDoesNotFit:
      alternative.set_reason_code("DOES_NOT_FIT");
      alternative.set_reason(absl::StrCat(
          activations, " needs ", Bytes(candidate.memory.total_bytes), " a rank, of ",
          Bytes(candidate.capacity_bytes), " only ", Bytes(UsableBytes(candidate.capacity_bytes)),
          " may be used (", LargestParts(candidate.memory), ")"));
      break;
    case Verdict::kCannotBePlaced:
      alternative.set_reason_code("CANNOT_BE_PLACED");
      alternative.set_reason(
          job.device == "cpu"
              ? absl::StrCat("no memory domain has ", candidate.ranks, " cpu slots")
              : absl::StrCat("the nodes have no room for ", candidate.ranks, " ranks in groups of ",
                             candidate.expert_parallel, " on one node each"));
      break;
  }
  return alternative;
}

}  // namespace

std::vector<std::string> ExplainInfeasible(const PlanInput& input, const ResolvedJob& job,
                                           const std::vector<Candidate>& candidates) {
  std::vector<std::string> problems;
  for (std::string problem : {ExplainSlots(input, job), ExplainExpertParallel(input, job)}) {
    if (!problem.empty()) problems.push_back(std::move(problem));
  }
  if (problems.empty() && !candidates.empty()) {
    problems.push_back(ExplainCandidate(input, job, candidates.front()));
  }
  return problems;
}

std::string ExplainDisk(const PlanInput& input, const ResolvedJob& job, int64_t checkpoint_bytes,
                        int64_t needed_bytes) {
  if (input.disk_free_bytes < 0 || input.disk_free_bytes >= needed_bytes) return "";
  const v1::CheckpointSpec& spec = job.spec.checkpoint();
  const bool regular = spec.interval_steps() > 0;
  return absl::StrCat(
      "checkpoint.output needs ", Bytes(needed_bytes), " (",
      regular ? absl::StrCat("checkpoints of ", Bytes(checkpoint_bytes), ", checkpoint.keep ",
                             spec.keep(), ", one more while saving, and the final model")
              : absl::StrCat("a checkpoint of ", Bytes(checkpoint_bytes),
                             " when it is paused, and the final model"),
      ") but only ", Bytes(input.disk_free_bytes), " are free under \"", spec.output(),
      regular && spec.keep() > 1 ? "\"; free space, lower checkpoint.keep or choose another output"
                                 : "\"; free space or choose another output");
}

std::vector<std::string> ListWarnings(const PlanInput& input, const ResolvedJob& job,
                                      const Candidate& chosen) {
  std::vector<std::string> warnings;
  warnings.push_back(
      chosen.rates.calibrated
          ? absl::StrCat("predicted speed comes from ", chosen.rates.source,
                         "; measured speed replaces it once the job runs")
          : absl::StrCat("predicted speed comes from ", chosen.rates.source,
                         ", not from this machine (see switchyard-trainer bench --calibrate); "
                         "measured speed replaces it once the job runs"));
  const int64_t covered = chosen.ranks * chosen.micro_batch * chosen.accumulation;
  if (covered > job.global_batch) {
    warnings.push_back(absl::StrCat("training.global_batch_sequences (", job.global_batch,
                                    ") is not a multiple of ranks x "
                                    "micro_batch_sequences (",
                                    chosen.ranks * chosen.micro_batch,
                                    "): ", covered - job.global_batch, " of ", covered,
                                    " places in every step are filled with empty sequences"));
  }
  if (input.train_sequences && *input.train_sequences < job.global_batch) {
    warnings.push_back(absl::StrCat("the training data has ", *input.train_sequences,
                                    " packed sequences, less than one step takes "
                                    "(training.global_batch_sequences ",
                                    job.global_batch, ")"));
  }
  if (job.device == "cpu" && job.precision == Precision::kBfloat16) {
    warnings.push_back(
        "training.precision \"bfloat16\" needs more memory than \"float32\" for small models on "
        "cpu: oneDNN keeps a compiled kernel for every shape that routing makes");
  }
  return warnings;
}

std::vector<v1::PlanAlternative> ListRejected(const ResolvedJob& job,
                                              const std::vector<Candidate>& candidates,
                                              const Candidate& chosen) {
  std::vector<v1::PlanAlternative> rejected, passed_over;
  // One slower and one that does not fit for each mesh: the rest differ only in the micro-batch and
  // what is recomputed. Of the chosen micro-batch all that was passed over.
  std::set<std::tuple<int, int, Verdict>> seen;
  std::map<Verdict, size_t> room = {
      {Verdict::kFits, 6}, {Verdict::kDoesNotFit, 4}, {Verdict::kCannotBePlaced, 2}};
  for (const Candidate& candidate : candidates) {
    if (candidate.ranks == chosen.ranks && candidate.expert_parallel == chosen.expert_parallel &&
        candidate.micro_batch == chosen.micro_batch) {
      if (candidate.memory.activations != chosen.memory.activations)
        passed_over.push_back(MakeAlternative(job, candidate, chosen));
      continue;
    }
    if (room[candidate.verdict] == 0 || rejected.size() == kMaxRejected) continue;
    if (!seen.emplace(candidate.ranks, candidate.expert_parallel, candidate.verdict).second)
      continue;
    --room[candidate.verdict];
    rejected.push_back(MakeAlternative(job, candidate, chosen));
  }
  rejected.insert(rejected.begin(), passed_over.begin(), passed_over.end());
  return rejected;
}

}  // namespace switchyard::coordinator
