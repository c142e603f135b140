#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/units.h"
#include "coordinator/report/expert_heatmap.h"
#include "coordinator/report/html_text.h"
#include "coordinator/report/line_chart.h"
#include "coordinator/report/report_sections.h"

namespace switchyard::coordinator {
namespace {

using Points = std::vector<std::pair<double, double>>;

// Of skipped steps too: what of them is not finite breaks the line.
template <typename Value>
Points PointsOf(const ReportInput& input, Value value) {
  Points points;
  for (const auto& sample : input.samples) {
    points.emplace_back(sample.step(), value(sample));
  }
  return points;
}

// Raw values faint under their smoothed line, once there are enough of them to need it.
void AddSmoothed(const std::string& name, const std::string& css_class, Points points,
                 LineChart& chart) {
  if (points.size() < 60) {
    chart.series.push_back({name, css_class, std::move(points)});
    return;
  }
  Points smooth = Smooth(points, points.size() / 40.0);
  chart.series.push_back({name, css_class, std::move(points), false, true});
  chart.series.push_back({name + " (smoothed)", css_class, std::move(smooth)});
}

}  // namespace

std::string LossSection(const ReportInput& input) {
  LineChart chart;
  chart.label = "training and held-out loss by step";
  AddSmoothed("training", "s1", PointsOf(input, [](const auto& s) { return s.loss(); }), chart);
  ChartSeries held_out{"held-out", "s2", {}, true, false};
  if (input.job.progress().has_initial_eval_loss()) {
    held_out.points.emplace_back(0, input.job.progress().initial_eval_loss());
  }
  for (const auto& sample : input.samples) {
    if (sample.has_eval_loss() &&
        (held_out.points.empty() || sample.step() > held_out.points.back().first)) {
      held_out.points.emplace_back(sample.step(), sample.eval_loss());
    }
  }
  if (!held_out.points.empty()) chart.series.push_back(std::move(held_out));
  return HtmlCard("Loss", "Mean cross-entropy, nats per target", RenderLineChart(chart));
}

std::string ThroughputSection(const ReportInput& input) {
  LineChart chart;
  chart.label = "tokens per second by step";
  chart.from_zero = true;
  chart.y_unit = "tokens/s";
  AddSmoothed("measured", "s1",
              PointsOf(input, [](const auto& s) { return s.tokens_per_second(); }), chart);
  chart.reference = input.job.plan().tokens_per_second();
  chart.reference_name = "predicted";
  if (input.samples.empty()) chart.reference = 0;
  return HtmlCard("Throughput", "Tokens per second over all ranks", RenderLineChart(chart));
}

std::string OptimizerSection(const ReportInput& input) {
  if (input.samples.empty()) return "";  // the loss says already that there are no steps
  LineChart rate;
  rate.label = "learning rate by step";
  rate.from_zero = true;
  rate.series.push_back(
      {"learning rate", "s3", PointsOf(input, [](const auto& s) { return s.learning_rate(); })});
  LineChart norm;
  norm.label = "gradient norm by step";
  norm.from_zero = true;
  AddSmoothed("gradient norm", "s3", PointsOf(input, [](const auto& s) { return s.grad_norm(); }),
              norm);
  return absl::StrCat(
      "<div class=\"grid2\">",
      HtmlCard("Gradient norm", "Global norm before clipping", RenderLineChart(norm)),
      HtmlCard("Learning rate", "", RenderLineChart(rate)), "</div>");
}

std::string RouterSection(const ReportInput& input) {
  if (input.samples.empty()) return "";
  LineChart balance;
  balance.label = "busiest expert over mean by step";
  balance.from_zero = true;
  AddSmoothed("busiest over mean", "s2",
              PointsOf(input, [](const auto& s) { return s.expert_load_max_over_mean(); }),
              balance);
  LineChart entropy;
  entropy.label = "router entropy by step";
  AddSmoothed("entropy", "s3",
              PointsOf(input, [](const auto& s) { return s.router_entropy_ratio(); }), entropy);
  return absl::StrCat(
      "<div class=\"grid2\">",
      HtmlCard("Expert balance", "Busiest expert's tokens over the mean, worst layer; 1 is even",
               RenderLineChart(balance)),
      HtmlCard("Router entropy", "Mean over layers, as a share of log(experts); 1 is undecided",
               RenderLineChart(entropy)),
      "</div>");
}

std::string ExpertSection(const ReportInput& input) {
  const auto& load = input.expert_load;
  const std::string note =
      load.layers().empty()
          ? ""
          : absl::StrCat("Tokens of each expert over its layer's mean at step ", load.step(),
                         "; the figure at the right is the layer's busiest expert");
  return HtmlCard("Experts", note, RenderExpertHeatmap(load));
}

}  // namespace switchyard::coordinator
