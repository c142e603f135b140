#include "coordinator/plan/mesh_choice.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <tuple>

#include "common/model/cuda_limits.h"
#include "coordinator/plan/placement.h"

namespace switchyard::coordinator {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// World sizes worth a look. Beyond 16 only even shapes: nobody wants a mesh of 37.
std::vector<int> WorldSizes(const ResolvedJob& job, int usable) {
  if (job.spec.mesh().ranks() > 0) return {job.spec.mesh().ranks()};
  // A rank without a sequence of its own would only wait.
  const auto most = static_cast<int>(std::min<int64_t>(usable, job.global_batch));
  std::vector<int> sizes;
  for (int ranks = 1; ranks <= most; ++ranks) {
    const int grain = ranks <= 16 ? 1 : (ranks <= 128 ? 8 : 64);
    if (ranks % grain == 0 || ranks == most) sizes.push_back(ranks);
  }
  return sizes;
}

std::vector<int> ExpertParallelSizes(const ResolvedJob& job, const ModelShape& model, int ranks) {
  const int asked = job.spec.mesh().expert_parallel();
  std::vector<int> sizes;
  for (int size = 1; size <= ranks; ++size) {
    if (asked > 0 && size != asked) continue;
    if (ranks % size != 0) continue;
    if (job.device_kind == DeviceKind::kCuda && size > CudaLimits::kMaxExpertParallel) break;
    if (model.num_experts == 0 ? size != 1 : model.num_experts % size != 0) continue;
    sizes.push_back(size);
  }
  return sizes;
}

// At most `most` tokens each, but that the smallest is always tried.
std::vector<int64_t> MicroBatches(const ResolvedJob& job, int64_t share, int64_t most) {
  if (job.spec.training().has_micro_batch_sequences()) {
    return {std::max(1, job.spec.training().micro_batch_sequences())};
  }
  std::vector<int64_t> sizes;
  for (int64_t size = 1; size * size <= share; ++size) {
    if (share % size != 0) continue;
    sizes.push_back(size);
    if (size * size != share) sizes.push_back(share / size);
  }
  std::sort(sizes.begin(), sizes.end());
  while (sizes.size() > 1 && sizes.back() > most / job.sequence_length) sizes.pop_back();
  return sizes;
}

// Where a mesh would run: the same for all its micro-batches.
struct Site {
  bool placed = false;
  int64_t capacity_bytes = 0;
  DeviceRates rates;
  double devices = 1;
  int nodes = 1;
};

Site FindSite(const PlanInput& input, const ResolvedJob& job, int ranks, int expert_parallel) {
  const auto placement = PlaceOnLargestSlots(input.slots, job.device, ranks, expert_parallel);
  Site site;
  if (!placement) {
    site.rates = RatesFor(job.device_kind, "", job.precision, input.calibrated);
    return site;
  }
  site.placed = true;
  site.capacity_bytes = SmallestSlotBytes(*placement);
  site.nodes = CountNodes(*placement);
  for (const PlannerSlot& slot : *placement) {
    const DeviceRates rates =
        RatesFor(job.device_kind, slot.product, job.precision, input.calibrated);
    if (site.rates.name.empty() ||
        rates.memory_bytes_per_second < site.rates.memory_bytes_per_second) {
      site.rates = rates;
    }
  }
  if (job.device_kind == DeviceKind::kCpu) {
    site.devices = CoresPerRank(*placement);
    site.nodes = 1;  // one memory domain is one machine
  }
  return site;
}

RankMemoryInput RankInput(const PlanInput& input, const ResolvedJob& job, int ranks,
                          int expert_parallel, int64_t micro_batch) {
  return {.model = input.model,
          .ranks = ranks,
          .expert_parallel = expert_parallel,
          .micro_batch_sequences = micro_batch,
          .sequence_length = job.sequence_length,
          .gradient_accumulation = CeilDivide(CeilDivide(job.global_batch, ranks), micro_batch),
          .precision = job.precision,
          .optimizer = job.optimizer,
          .device = job.device_kind,
          .deterministic = job.spec.training().deterministic()};
}

// What layers may keep, from least recomputation to most; without a value it is what the trainer
// takes by itself. With expert parallelism, and on CPU, all is kept only where it does that: room
// for the rows of the worst routing would be reserved, and steps are no faster for it.
std::vector<std::optional<ActivationMemory>> ActivationChoices(const ResolvedJob& job,
                                                               const RankMemoryInput& rank) {
  if (job.spec.training().has_activation_memory()) {
    return {ActivationMemoryByName(job.spec.training().activation_memory())};
  }
  std::vector<std::optional<ActivationMemory>> choices = {
      std::nullopt, ActivationMemory::kRecomputeGateUp, ActivationMemory::kRecomputeLayer};
  if (job.device_kind == DeviceKind::kCuda && rank.expert_parallel == 1 &&
      ComputeRankMemory(rank).activations != ActivationMemory::kSaveAll) {
    choices.insert(choices.begin(), ActivationMemory::kSaveAll);
  }
  return choices;
}

Candidate Evaluate(const ResolvedJob& job, const Site& site, const RankMemoryInput& rank) {
  Candidate candidate;
  candidate.ranks = static_cast<int>(rank.ranks);
  candidate.expert_parallel = static_cast<int>(rank.expert_parallel);
  candidate.micro_batch = rank.micro_batch_sequences;
  candidate.accumulation = rank.gradient_accumulation;
  candidate.capacity_bytes = site.capacity_bytes;
  candidate.rates = site.rates;
  candidate.memory = PlanMemory(rank, site.rates.runtime_baseline_bytes);
  candidate.activations_by_trainer = !rank.activations.has_value();

  ThroughputInput throughput;
  throughput.rank = rank;
  throughput.rank.activations = candidate.memory.activations;
  throughput.rates = site.rates;
  throughput.devices = site.devices;
  throughput.nodes = site.nodes;
  candidate.step = PredictStep(throughput);
  candidate.tokens_per_second =
      static_cast<double>(job.global_batch * job.sequence_length) / candidate.step.Total();
  candidate.verdict = !site.placed ? Verdict::kCannotBePlaced
                      : FitsWithMargin(candidate.memory.total_bytes, site.capacity_bytes)
                          ? Verdict::kFits
                          : Verdict::kDoesNotFit;
  return candidate;
}

bool Better(const Candidate& a, const Candidate& b) {
  if (a.verdict != b.verdict) return a.verdict < b.verdict;
  if (a.verdict == Verdict::kFits && a.tokens_per_second != b.tokens_per_second) {
    return a.tokens_per_second > b.tokens_per_second;
  }
  const auto order = [](const Candidate& c) {
    return std::make_tuple(c.verdict == Verdict::kFits ? 0 : c.memory.total_bytes, c.ranks,
                           c.expert_parallel, c.micro_batch, c.memory.activations);
  };
  return order(a) < order(b);
}

}  // namespace

int UsableSlots(const PlanInput& input, const ResolvedJob& job) {
  std::map<std::string, int> groups;
  for (const PlannerSlot& slot : input.slots) {
    if (slot.device != job.device) continue;
    ++groups[job.device_kind == DeviceKind::kCuda ? "" : PlacementGroup(slot)];
  }
  int most = 0;
  for (const auto& [name, count] : groups) most = std::max(most, count);
  return most;
}

std::vector<Candidate> ListCandidates(const PlanInput& input, const ResolvedJob& job) {
  std::vector<Candidate> candidates;
  const bool gpu = job.device_kind == DeviceKind::kCuda;
  const int64_t tokens = gpu ? MaxCudaTokens(input.model) : std::numeric_limits<int64_t>::max();
  for (const int ranks : WorldSizes(job, UsableSlots(input, job))) {
    const int64_t share = CeilDivide(job.global_batch, ranks);
    for (const int expert_parallel : ExpertParallelSizes(job, input.model, ranks)) {
      const Site site = FindSite(input, job, ranks, expert_parallel);
      for (const int64_t micro_batch : MicroBatches(job, share, tokens)) {
        RankMemoryInput rank = RankInput(input, job, ranks, expert_parallel, micro_batch);
        for (const auto& activations : ActivationChoices(job, rank)) {
          rank.activations = activations;
          candidates.push_back(Evaluate(job, site, rank));
          if (candidates.back().verdict != Verdict::kDoesNotFit) break;
        }
      }
    }
  }
  std::sort(candidates.begin(), candidates.end(), Better);
  return candidates;
}

}  // namespace switchyard::coordinator
