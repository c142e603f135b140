#include "worker/trainer/train/expert_load.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace switchyard::trainer {
namespace {

std::vector<int64_t> Row(const at::Tensor& tokens_per_expert, int64_t layer) {
  const int64_t experts = tokens_per_expert.size(1);
  const int64_t* counts = tokens_per_expert.const_data_ptr<int64_t>() + layer * experts;
  return {counts, counts + experts};
}

}  // namespace

ExpertLoadSummary SummarizeExpertLoad(const at::Tensor& tokens_per_expert, double router_entropy) {
  ExpertLoadSummary summary;
  for (int64_t layer = 0; layer < tokens_per_expert.size(0); ++layer) {
    const std::vector<int64_t> counts = Row(tokens_per_expert, layer);
    const auto total =
        static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
    summary.dead_experts += std::count(counts.begin(), counts.end(), 0);
    if (total == 0) continue;
    const auto largest = static_cast<double>(*std::max_element(counts.begin(), counts.end()));
    summary.max_over_mean =
        std::max(summary.max_over_mean, largest * static_cast<double>(counts.size()) / total);
  }
  if (tokens_per_expert.size(1) > 1) {
    summary.router_entropy_ratio =
        router_entropy / std::log(static_cast<double>(tokens_per_expert.size(1)));
  }
  return summary;
}

ExpertLoadReport MakeExpertLoadReport(int64_t step, const ModelShape& shape,
                                      const at::Tensor& tokens_per_expert) {
  ExpertLoadReport report;
  report.step = step;
  report.num_experts = tokens_per_expert.size(1);
  for (int layer = 0; layer < static_cast<int>(shape.is_moe_layer.size()); ++layer) {
    if (!shape.is_moe_layer[layer]) continue;
    report.tokens_per_expert.push_back(
        Row(tokens_per_expert, static_cast<int64_t>(report.layers.size())));
    report.layers.push_back(layer);
  }
  return report;
}

}  // namespace switchyard::trainer
