// YAML (and JSON, its subset) into any protobuf message, by reflection: no list of fields is kept
// here.
//
// Knows nothing of jobs. Every problem is collected, with the field's path and the line.
#pragma once

#include <google/protobuf/message.h>
#include <yaml-cpp/node/node.h>

#include <vector>

#include "common/rpc/violations.h"

namespace switchyard::coordinator {

// Fills `message` from the mapping `node`. Field names are the proto's (snake_case) or their
// lowerCamelCase JSON names. null leaves a field unset. Appends one violation for each unknown or
// repeated key and each value of the wrong type or out of the type's range.
void YamlToProto(const YAML::Node& node, google::protobuf::Message& message,
                 std::vector<rpc::Violation>& violations);

// Paths of all fields of a message type, nested ones with dots ("training.learning_rate").
std::vector<std::string> FieldPaths(const google::protobuf::Descriptor& type);

}  // namespace switchyard::coordinator
