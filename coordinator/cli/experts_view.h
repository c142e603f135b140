// The layer x expert heatmap for a terminal, and its numbers for a pipe. Pure.
#pragma once

#include <string>

#include "switchyard/v1/metrics.pb.h"

namespace switchyard::coordinator {

// One row a layer, one cell an expert (or several neighbours, the busiest of them, when `width` is
// too small); colour is load over the layer's mean.
std::string ExpertHeatmap(const v1::ExpertLoad& load, int width);
// One row a layer: load over mean of every expert, with the layer's maximum and its experts without
// tokens.
std::string ExpertNumbers(const v1::ExpertLoad& load);

}  // namespace switchyard::coordinator
