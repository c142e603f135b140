#include "coordinator/cli/json_text.h"

#include <google/protobuf/util/json_util.h>

#include "common/check.h"

namespace switchyard::coordinator {
namespace {

std::string Json(const google::protobuf::Message& message, bool pretty) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  options.add_whitespace = pretty;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  SWITCHYARD_CHECK(status.ok(), "our messages hold no Any that could fail");
  if (text.empty() || text.back() != '\n') text.push_back('\n');
  return text;
}

}  // namespace

std::string JsonText(const google::protobuf::Message& message) { return Json(message, true); }
std::string JsonLine(const google::protobuf::Message& message) { return Json(message, false); }

}  // namespace switchyard::coordinator
