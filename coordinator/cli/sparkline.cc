#include "coordinator/cli/sparkline.h"

#include <algorithm>
#include <cmath>

namespace switchyard::coordinator {
namespace {

std::vector<double> Squeeze(const std::vector<double>& values, int width) {
  const auto count = static_cast<int>(values.size());
  if (count <= width) return values;
  std::vector<double> result;
  for (int i = 0; i < width; ++i) {
    double sum = 0;
    int finite = 0;
    for (int j = i * count / width; j < (i + 1) * count / width; ++j) {
      if (!std::isfinite(values[j])) continue;
      sum += values[j];
      ++finite;
    }
    result.push_back(finite > 0 ? sum / finite : std::nan(""));
  }
  return result;
}

}  // namespace

std::string ProgressBar(double done, int width, bool unicode) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  if (!std::isfinite(done)) done = 0;
  done = std::clamp(done, 0.0, 1.0);
  std::string bar;
  if (!unicode) {
    const int full = static_cast<int>(done * width);
    return std::string(full, '#') + std::string(width - full, '.');
  }
  const int eighths = static_cast<int>(done * width * 8);
  for (int i = 0; i < eighths / 8; ++i) bar += "█";
  int used = eighths / 8;
  if (eighths % 8 != 0) {
    bar += kEighths[eighths % 8];
    ++used;
  }
  for (; used < width; ++used) bar += "░";
  return bar;
}

std::string Sparkline(const std::vector<double>& values, int width, bool unicode) {
  static constexpr const char* kLevels[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  if (!unicode || width <= 0) return "";
  const std::vector<double> points = Squeeze(values, width);
  double low = INFINITY;
  double high = -INFINITY;
  for (double value : points) {
    if (!std::isfinite(value)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  std::string line;
  for (double value : points) {
    if (!std::isfinite(value)) {
      line += " ";
      continue;
    }
    const double share = high > low ? (value - low) / (high - low) : 0.5;
    line += kLevels[std::clamp(static_cast<int>(share * 8), 0, 7)];
  }
  return line;
}

}  // namespace switchyard::coordinator
