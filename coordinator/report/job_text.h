// How jobs are named and their states shown on pages.
#pragma once

#include <string>

#include "switchyard/v1/job.pb.h"

namespace switchyard::coordinator {

// "foldoc" of "projects/default/jobs/foldoc", and "default".
std::string JobId(const v1::Job& job);
std::string JobProject(const v1::Job& job);
// "RUNNING"
std::string JobStateName(v1::JobState state);
// "training", empty for none.
std::string PhaseWord(v1::JobPhase phase);
// A coloured badge with the state.
std::string StateBadge(v1::JobState state);
// A figure with its name and a detail under it; all three are HTML already.
std::string HtmlTile(const std::string& name, const std::string& value, const std::string& detail);

}  // namespace switchyard::coordinator
