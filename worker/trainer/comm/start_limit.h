// How long ranks wait for each other until all have joined: as long as a coordinator gives a
// launch, because one of them may have much to read first. Whoever started a rank sees it end at
// once.
#pragma once

#include <chrono>

namespace switchyard::trainer {

inline constexpr std::chrono::minutes kStartLimit{30};

}  // namespace switchyard::trainer
