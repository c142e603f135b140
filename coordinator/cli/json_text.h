// Messages as JSON for --output json: proto field names, every plain field written, int64 as text.
#pragma once

#include <google/protobuf/message.h>

#include <string>

namespace switchyard::coordinator {

// Indented, ends with '\n'.
std::string JsonText(const google::protobuf::Message& message);
// One line, ends with '\n': for streams.
std::string JsonLine(const google::protobuf::Message& message);

}  // namespace switchyard::coordinator
