// From values to positions on a chart, with ticks at round numbers.
#pragma once

#include <string>
#include <vector>

namespace switchyard::coordinator {

struct ChartScale {
  double low = 0;
  double high = 1;
  double step = 1;  // between ticks

  // Position of `value` between `begin` (at low) and `end` (at high).
  double At(double value, double begin, double end) const {
    return begin + (value - low) / (high - low) * (end - begin);
  }
  std::vector<double> Ticks() const;
};

// A scale that holds [low, high] with about `ticks` round steps of 1, 2 or 5 times a power of ten.
// Equal or not finite bounds give a scale around them.
ChartScale RoundScale(double low, double high, int ticks);
// The same without rounding the ends outward: for an axis of steps.
ChartScale TightScale(double low, double high, int ticks);
// "1,200", "0.05", "2e-06": as many digits as the distance of the ticks asks for.
std::string TickText(double value, double step);

}  // namespace switchyard::coordinator
