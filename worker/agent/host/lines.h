// The JSON lines of children as messages, and messages as lines.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "switchyard/agent/v1/agent.pb.h"

namespace switchyard::agent {

// A trainer's line on fd 3. Unknown fields are ignored.
absl::StatusOr<trainer::v1::TrainerLine> ParseTrainerLine(absl::string_view line);
// A line for a trainer's fd 4, without newline.
std::string FormatAgentLine(const trainer::v1::AgentLine& line);
// A line of prepare_data.py: {"progress": 0.3}, {"result": {fields of DataStatus}} or
// {"error": {"message": ..., "user_error": true}}.
absl::StatusOr<v1::DataStatus> ParsePreparationLine(absl::string_view line);

}  // namespace switchyard::agent
