// Bars and sparklines out of block characters, with a plain fallback.
#pragma once

#include <string>
#include <vector>

namespace switchyard::coordinator {

// `done` in 0..1 of `width` columns, in eighths of a column with unicode, else "####....".
std::string ProgressBar(double done, int width, bool unicode);
// One character a value, lowest to highest; values that are not finite are blanks. More values than
// `width` are averaged in groups. Empty without unicode.
std::string Sparkline(const std::vector<double>& values, int width, bool unicode);

}  // namespace switchyard::coordinator
