#include "coordinator/report/chart_scale.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "common/units.h"

namespace switchyard::coordinator {
namespace {

double RoundStep(double span, int ticks) {
  const double rough = span / std::max(1, ticks);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (rough <= factor * power * 1.0001) return factor * power;
  }
  return 10 * power;
}

void MakeUsable(double& low, double& high) {
  if (!std::isfinite(low) || !std::isfinite(high)) {
    low = 0;
    high = 1;
  }
  if (high - low > 1e-12 * std::max(std::abs(low), std::abs(high))) return;
  const double margin = low == 0 ? 1 : std::abs(low) * 0.1;
  low -= low == 0 ? 0 : margin;
  high += margin;
}

}  // namespace

std::vector<double> ChartScale::Ticks() const {
  std::vector<double> ticks;
  const double first = std::ceil(low / step - 1e-9) * step;
  for (int i = 0; i < 100; ++i) {
    const double tick = first + i * step;
    if (tick > high + step * 1e-9) break;
    ticks.push_back(std::abs(tick) < step * 1e-9 ? 0 : tick);
  }
  return ticks;
}

ChartScale RoundScale(double low, double high, int ticks) {
  MakeUsable(low, high);
  const double step = RoundStep(high - low, ticks);
  return {std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step, step};
}

ChartScale TightScale(double low, double high, int ticks) {
  MakeUsable(low, high);
  return {low, high, std::max(1.0, RoundStep(high - low, ticks))};
}

std::string TickText(double value, double step) {
  if (value == 0) return "0";
  if (step < 1e-3 && std::abs(value) < 0.1)
    return absl::StrFormat("%g", std::round(value / step) * step);
  const int decimals = step >= 1 ? 0 : static_cast<int>(std::ceil(-std::log10(step) - 1e-9));
  if (decimals > 0) return absl::StrFormat("%.*f", decimals, value);
  return std::abs(value) >= 1e6 ? FormatCount(value) : FormatGrouped(std::llround(value));
}

}  // namespace switchyard::coordinator
