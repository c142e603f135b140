#include "coordinator/report/line_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/units.h"
#include "coordinator/report/chart_scale.h"
#include "coordinator/report/html_text.h"

namespace switchyard::coordinator {
namespace {

constexpr double kWidth = 520;
constexpr double kHeight = 240;
constexpr double kLeft = 58;
constexpr double kRight = 508;
constexpr double kTop = 12;
constexpr double kBottom = 200;

struct Bounds {
  double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
};

Bounds BoundsOf(const LineChart& chart) {
  Bounds bounds;
  for (const ChartSeries& series : chart.series) {
    for (const auto& [x, y] : series.points) {
      if (!std::isfinite(y)) continue;
      bounds.x_low = std::min(bounds.x_low, x);
      bounds.x_high = std::max(bounds.x_high, x);
      bounds.y_low = std::min(bounds.y_low, y);
      bounds.y_high = std::max(bounds.y_high, y);
    }
  }
  if (chart.reference > 0) {
    bounds.y_low = std::min(bounds.y_low, chart.reference);
    bounds.y_high = std::max(bounds.y_high, chart.reference);
  }
  if (chart.from_zero) bounds.y_low = std::min(bounds.y_low, 0.0);
  return bounds;
}

struct Axes {
  ChartScale x;
  ChartScale y;
  double X(double value) const { return x.At(value, kLeft, kRight); }
  double Y(double value) const { return y.At(value, kBottom, kTop); }
};

std::string Grid(const Axes& axes, const std::string& x_name) {
  std::string svg;
  for (const double tick : axes.y.Ticks()) {
    const double y = axes.Y(tick);
    absl::StrAppend(
        &svg,
        absl::StrFormat("<line class=\"grid\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>",
                        kLeft, kRight, y, y),
        absl::StrFormat("<text class=\"tick\" x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>",
                        kLeft - 6, y + 4, TickText(tick, axes.y.step)));
  }
  for (const double tick : axes.x.Ticks()) {
    absl::StrAppend(
        &svg, absl::StrFormat(
                  "<text class=\"tick\" x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>",
                  axes.X(tick), kBottom + 18, TickText(tick, axes.x.step)));
  }
  absl::StrAppend(
      &svg,
      absl::StrFormat("<line class=\"axis\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.0f\" y2=\"%.0f\"/>",
                      kLeft, kRight, kBottom, kBottom),
      absl::StrFormat("<text class=\"tick\" x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>",
                      (kLeft + kRight) / 2, kHeight - 5, EscapeHtml(x_name)));
  return svg;
}

std::string Line(const ChartSeries& series, const Axes& axes) {
  std::string path;
  std::string dots;
  bool pen_down = false;
  int finite = 0;
  for (const auto& [x, y] : series.points) {
    if (!std::isfinite(y)) {
      pen_down = false;
      continue;
    }
    ++finite;
    absl::StrAppend(&path, pen_down ? "L" : "M",
                    absl::StrFormat("%.1f %.1f", axes.X(x), axes.Y(y)));
    pen_down = true;
    if (series.markers) {
      absl::StrAppend(&dots,
                      absl::StrFormat("<circle class=\"dot %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>",
                                      series.css_class, axes.X(x), axes.Y(y)));
    }
  }
  if (finite == 1 && !series.markers) {  // a line of one point cannot be seen
    const auto point = std::find_if(series.points.begin(), series.points.end(),
                                    [](const auto& p) { return std::isfinite(p.second); });
    dots = absl::StrFormat("<circle class=\"dot %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>",
                           series.css_class, axes.X(point->first), axes.Y(point->second));
  }
  return absl::StrCat("<path class=\"line ", series.css_class, series.faint ? " faint" : "",
                      "\" d=\"", path, "\"/>", dots);
}

// What the hover script reads: positions and texts, nothing to compute.
std::string HoverData(const LineChart& chart, const Axes& axes) {
  std::string data;
  for (const ChartSeries& series : chart.series) {
    if (series.faint) continue;
    for (const auto& [x, y] : series.points) {
      if (!std::isfinite(y)) continue;
      absl::StrAppend(
          &data, absl::StrFormat("%.1f|%.1f|%s|%.0f|%.4g%s;", axes.X(x), axes.Y(y), series.name, x,
                                 y, chart.y_unit.empty() ? "" : " " + chart.y_unit));
    }
  }
  return EscapeHtml(data);
}

std::string Legend(const LineChart& chart) {
  std::string html = "<div class=\"legend\">";
  for (const ChartSeries& series : chart.series) {
    if (series.faint || series.points.empty()) continue;
    absl::StrAppend(&html, "<span><i class=\"", series.css_class, "\"></i>",
                    EscapeHtml(series.name), "</span>");
  }
  if (chart.reference > 0) {
    absl::StrAppend(&html, "<span><i class=\"dash\"></i>", EscapeHtml(chart.reference_name),
                    "</span>");
  }
  return html + "</div>";
}

}  // namespace

std::string RenderLineChart(const LineChart& chart) {
  const Bounds bounds = BoundsOf(chart);
  if (!std::isfinite(bounds.x_low)) {
    const bool any = std::any_of(chart.series.begin(), chart.series.end(),
                                 [](const ChartSeries& series) { return !series.points.empty(); });
    return absl::StrCat("<p class=\"empty\">",
                        any ? "No finite values." : "No steps were reported.", "</p>");
  }
  // One step alone is drawn in the middle.
  const bool single = bounds.x_low == bounds.x_high;
  const Axes axes{TightScale(bounds.x_low - (single ? 1 : 0), bounds.x_high + (single ? 1 : 0), 6),
                  RoundScale(bounds.y_low, bounds.y_high, 5)};
  std::string svg = absl::StrFormat(
      "<svg class=\"chart\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\" "
      "data-hover=\"%s\">",
      kWidth, kHeight, EscapeHtml(chart.label), HoverData(chart, axes));
  svg += Grid(axes, chart.x_name);
  if (chart.reference > 0) {
    const double y = axes.Y(chart.reference);
    svg += absl::StrFormat(
        "<line class=\"reference\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>", kLeft,
        kRight, y, y);
  }
  for (const ChartSeries& series : chart.series) svg += Line(series, axes);
  return absl::StrCat(Legend(chart), "<div class=\"plot\">", svg, "</svg></div>");
}

std::vector<std::pair<double, double>> Smooth(const std::vector<std::pair<double, double>>& points,
                                              double steps) {
  std::vector<std::pair<double, double>> result;
  for (const auto& point : points) {
    if (std::isfinite(point.second)) result.push_back(point);
  }
  const double keep = std::exp(-1.0 / std::max(steps, 1e-3));
  // Forwards and backwards, each point counted once: a mean that looks both ways does not lag.
  std::vector<double> sums(result.size());
  std::vector<double> weights(result.size());
  const auto pass = [&](auto index_of, bool with_itself) {
    double sum = 0;
    double weight = 0;
    for (size_t i = 0; i < result.size(); ++i) {
      const size_t index = index_of(i);
      sum *= keep;
      weight *= keep;
      if (!with_itself) {
        sums[index] += sum;
        weights[index] += weight;
      }
      sum += result[index].second;
      weight += 1;
      if (with_itself) {
        sums[index] += sum;
        weights[index] += weight;
      }
    }
  };
  pass([](size_t i) { return i; }, true);
  pass([&](size_t i) { return result.size() - 1 - i; }, false);
  for (size_t i = 0; i < result.size(); ++i) result[i].second = sums[i] / weights[i];
  return result;
}

}  // namespace switchyard::coordinator
