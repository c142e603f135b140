// What the configurations of all clusters have in common: a JSON file that is a message, and the
// shape of nodes that are not there yet.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/plan/planner.h"
#include "switchyard/launch/v1/node_shape.pb.h"

namespace switchyard::coordinator {

// Fills `config` from the JSON file `path`, which `flag` ("--slurm") named, and adds a sentence for
// every unknown or mistyped field. InvalidArgument when it cannot be read or is no JSON object.
absl::Status ReadConfigFile(const std::string& flag, const std::string& path,
                            google::protobuf::Message* config, std::vector<std::string>* problems);
// What is wrong with a field: its name, what it is, and what it should be.
std::string Fault(const std::string& field, const std::string& value, const std::string& fix);
std::string Fault(const std::string& field, double value, const std::string& fix);
// Adds a sentence for every field that cannot be.
void CheckNodeShape(const launch::v1::NodeShape& nodes, std::vector<std::string>* problems);
// Problems as one InvalidArgument; OK when there are none.
absl::Status ConfigError(const std::string& flag, const std::string& path,
                         const std::vector<std::string>& problems);

// All slots of all nodes (NodeAllocator::Offer). Nodes are "0", "1"...; each is a memory domain of
// its own, called after `cluster`, unless they are one machine.
std::vector<PlannerSlot> SlotsOf(const launch::v1::NodeShape& nodes, const std::string& cluster);

}  // namespace switchyard::coordinator
