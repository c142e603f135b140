#include "coordinator/report/expert_heatmap.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/units.h"

namespace switchyard::coordinator {
namespace {

constexpr int kBins = 9;
constexpr double kLeft = 62;
constexpr double kTop = 24;

// Nine bins over a quarter of the mean to four times the mean; the middle one holds the mean.
int BinOf(double ratio) {
  const double position = (std::log2(ratio) + 2) / 4 * kBins;
  return std::clamp(static_cast<int>(std::floor(position)), 0, kBins - 1);
}

std::string Legend() {
  std::string html =
      "<div class=\"legend\"><span><i class=\"cell hd\"></i>idle</span><span>&frac14; of the mean ";
  for (int bin = 0; bin < kBins; ++bin) absl::StrAppend(&html, "<i class=\"cell h", bin, "\"></i>");
  return html + " 4 &times; the mean</span></div>";
}

}  // namespace

std::string RenderExpertHeatmap(const v1::ExpertLoad& load) {
  if (load.layers().empty()) return "<p class=\"empty\">No expert load was reported.</p>";
  int experts = 0;
  for (const auto& layer : load.layers())
    experts = std::max(experts, layer.tokens_per_expert_size());
  const double cell_width = std::clamp(940.0 / std::max(1, experts), 7.0, 40.0);
  const double cell_height = std::clamp(600.0 / load.layers_size(), 10.0, 24.0);
  const double width = kLeft + cell_width * experts + 62;
  const double height = kTop + cell_height * load.layers_size() + 4;
  std::string svg = absl::StrFormat(
      "<svg class=\"heat\" width=\"%.0f\" height=\"%.0f\" role=\"img\" "
      "aria-label=\"tokens per expert and layer\">",
      width, height);
  const int every = std::max(1, static_cast<int>(std::ceil(30 / cell_width)));
  for (int expert = 0; expert < experts; expert += every) {
    absl::StrAppend(
        &svg, absl::StrFormat(
                  "<text class=\"tick\" x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%d</text>",
                  kLeft + cell_width * (expert + 0.5), kTop - 8, expert));
  }
  int row = 0;
  for (const auto& layer : load.layers()) {
    double total = 0;
    int64_t most = 0;
    for (const int64_t tokens : layer.tokens_per_expert()) {
      total += static_cast<double>(tokens);
      most = std::max(most, tokens);
    }
    const double mean = total / std::max(1, layer.tokens_per_expert_size());
    const double y = kTop + cell_height * row++;
    absl::StrAppend(
        &svg, absl::StrFormat(
                  "<text class=\"tick\" x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">layer %d</text>",
                  kLeft - 6, y + cell_height / 2 + 4, layer.layer()));
    for (int expert = 0; expert < layer.tokens_per_expert_size(); ++expert) {
      const int64_t tokens = layer.tokens_per_expert(expert);
      const double ratio = mean > 0 ? static_cast<double>(tokens) / mean : 0;
      const std::string bin = tokens > 0 ? absl::StrCat("h", BinOf(ratio)) : "hd";
      // A pixel of the card's ground between cells keeps them apart in either theme.
      absl::StrAppend(
          &svg,
          absl::StrFormat("<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\">"
                          "<title>layer %d, expert %d: %s tokens, %.2f x mean</title></rect>",
                          bin, kLeft + cell_width * expert + 0.5, y + 0.5, cell_width - 1,
                          cell_height - 1, layer.layer(), expert, FormatGrouped(tokens), ratio));
    }
    absl::StrAppend(&svg,
                    absl::StrFormat("<text class=\"tick\" x=\"%.1f\" y=\"%.1f\">%.2f&times;</text>",
                                    kLeft + cell_width * experts + 8, y + cell_height / 2 + 4,
                                    mean > 0 ? static_cast<double>(most) / mean : 0.0));
  }
  return absl::StrCat(Legend(), "<div class=\"scroll\">", svg, "</svg></div>");
}

}  // namespace switchyard::coordinator
