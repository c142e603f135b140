// The layer x expert heatmap as inline SVG.
#pragma once

#include <string>

#include "switchyard/v1/metrics.pb.h"

namespace switchyard::coordinator {

// Colour is load over the layer's mean, on a scale that is symmetric around the mean; idle experts
// are hollow.
std::string RenderExpertHeatmap(const v1::ExpertLoad& load);

}  // namespace switchyard::coordinator
