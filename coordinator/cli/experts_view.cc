#include "coordinator/cli/experts_view.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/cli/text_table.h"

namespace switchyard::coordinator {
namespace {

struct LayerLoad {
  std::vector<double> ratio;  // tokens over the layer's mean
  double max = 0;
  int dead = 0;
};

LayerLoad Ratios(const v1::ExpertLoadLayer& layer) {
  LayerLoad result;
  double sum = 0;
  for (const int64_t tokens : layer.tokens_per_expert()) sum += static_cast<double>(tokens);
  const double mean = layer.tokens_per_expert().empty() ? 0 : sum / layer.tokens_per_expert_size();
  for (const int64_t tokens : layer.tokens_per_expert()) {
    result.ratio.push_back(mean > 0 ? static_cast<double>(tokens) / mean : 0);
    result.max = std::max(result.max, result.ratio.back());
    result.dead += tokens == 0 ? 1 : 0;
  }
  return result;
}

// xterm-256 colours from no load (dark) over the mean (green) to four times the mean (red).
int ColorOf(double ratio) {
  static constexpr int kRamp[] = {236, 17,  18,  24,  30,  35,  40, 112,
                                  148, 184, 214, 208, 202, 196, 160};
  if (ratio <= 0) return kRamp[0];
  // The mean sits in the middle; each step is a factor of about 1.3.
  const int index = static_cast<int>(std::lround(6 + std::log(ratio) / std::log(1.3)));
  return kRamp[std::clamp(index, 1, 14)];
}

std::string Cell(double ratio, int columns) {
  return absl::StrCat("\033[48;5;", ColorOf(ratio), "m", std::string(columns, ' '));
}

std::string Legend() {
  std::string line = "  load over mean  ";
  for (double ratio : {0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0}) {
    absl::StrAppend(&line, Cell(ratio, 2), "\033[0m ", absl::StrFormat("%g", ratio), "  ");
  }
  return line + "\n";
}

}  // namespace

std::string ExpertHeatmap(const v1::ExpertLoad& load, int width) {
  constexpr int kLeft = 11;
  constexpr int kRight = 22;
  const int experts = std::max(1, load.num_experts());
  const int room = std::max(8, width - kLeft - kRight);
  const int columns = std::clamp(room / experts, 1, 3);     // of one cell
  const int group = (experts * columns + room - 1) / room;  // experts in one cell
  std::string text = absl::StrCat(
      "Expert load at step ", load.step(), ", ", load.layers_size(), " layers x ", experts,
      " experts", group > 1 ? absl::StrCat(", the busiest of ", group, " a cell") : "", "\n",
      Legend());
  for (const auto& layer : load.layers()) {
    const LayerLoad ratios = Ratios(layer);
    absl::StrAppend(&text, absl::StrFormat("  layer %-3d", layer.layer()));
    for (size_t i = 0; i < ratios.ratio.size(); i += group) {
      const size_t end = std::min(ratios.ratio.size(), i + group);
      absl::StrAppend(
          &text,
          Cell(*std::max_element(ratios.ratio.begin() + i, ratios.ratio.begin() + end), columns));
    }
    absl::StrAppend(&text, "\033[0m ", absl::StrFormat("max %.2f", ratios.max));
    if (ratios.dead > 0) absl::StrAppend(&text, ", ", ratios.dead, " idle");
    absl::StrAppend(&text, "\n");
  }
  return text;
}

std::string ExpertNumbers(const v1::ExpertLoad& load) {
  std::vector<std::string> header = {"layer", "max", "idle"};
  for (int i = 0; i < load.num_experts(); ++i) header.push_back(absl::StrCat("e", i));
  TextTable table(header);
  for (size_t i = 0; i < header.size(); ++i) table.AlignRight(static_cast<int>(i));
  for (const auto& layer : load.layers()) {
    const LayerLoad ratios = Ratios(layer);
    std::vector<std::string> row = {absl::StrCat(layer.layer()),
                                    absl::StrFormat("%.2f", ratios.max), absl::StrCat(ratios.dead)};
    for (const double ratio : ratios.ratio) row.push_back(absl::StrFormat("%.2f", ratio));
    table.AddRow(std::move(row));
  }
  return absl::StrCat("Expert load over its layer's mean at step ", load.step(), "\n",
                      table.Render());
}

}  // namespace switchyard::coordinator
