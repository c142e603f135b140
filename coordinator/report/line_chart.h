// A line chart as inline SVG: axes, ticks, one or two lines, points, a dashed reference. Colours
// come from the page's style by class, so that light and dark both work.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace switchyard::coordinator {

struct ChartSeries {
  std::string name;
  std::string css_class;  // "s1", "s2", "s3": colours of the page
  std::vector<std::pair<double, double>>
      points;            // x growing; a y that is not finite breaks the line
  bool markers = false;  // a dot at each point: few and far between
  bool faint = false;    // raw values under their smoothed line
};

struct LineChart {
  std::string label;  // for screen readers
  std::vector<ChartSeries> series;
  double reference = 0;  // dashed line when > 0
  std::string reference_name;
  bool from_zero = false;
  std::string x_name = "step";
  std::string y_unit;  // after values on hover
};

// The chart with its legend; a sentence instead when there is no point.
std::string RenderLineChart(const LineChart& chart);

// Mean of each point's neighbours on both sides, their weight falling over about `steps` points;
// values that are not finite are left out.
std::vector<std::pair<double, double>> Smooth(const std::vector<std::pair<double, double>>& points,
                                              double steps);

}  // namespace switchyard::coordinator
