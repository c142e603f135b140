// Numbers for people: bytes, counts, times. Used by plan texts, the CLI and the report.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard {

// "812 B", "1.5 GiB": binary units, three figures.
std::string FormatBytes(double bytes);
// "950", "15.3 K", "1.24 M": decimal units, three figures.
std::string FormatCount(double count);
// "0.4 s", "42 s", "3 m 05 s", "2 h 07 m", "3 d 04 h".
std::string FormatDuration(double seconds);
// Four decimals for losses; "NaN" and "inf" as they are.
std::string FormatLoss(double loss);
// "1.0e-05", for learning rates and other small numbers.
std::string FormatScientific(double value);

}  // namespace switchyard
