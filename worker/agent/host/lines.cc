#include "worker/agent/host/lines.h"

#include <google/protobuf/util/json_util.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace switchyard::agent {
namespace {

absl::Status Parse(const std::string& text, google::protobuf::Message* message) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto status = google::protobuf::util::JsonStringToMessage(text, message, options);
  if (status.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(std::string(status.message()));
}

}  // namespace

absl::StatusOr<trainer::v1::TrainerLine> ParseTrainerLine(absl::string_view line) {
  trainer::v1::TrainerLine message;
  if (const auto status = Parse(std::string(line), &message); !status.ok()) return status;
  return message;
}

std::string FormatAgentLine(const trainer::v1::AgentLine& line) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  [[maybe_unused]] const auto status =
      google::protobuf::util::MessageToJsonString(line, &text, options);
  return text;
}

absl::StatusOr<v1::DataStatus> ParsePreparationLine(absl::string_view line) {
  const auto json =
      nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("not a JSON object");
  v1::DataStatus data;
  if (const auto progress = json.find("progress");
      progress != json.end() && progress->is_number()) {
    data.set_progress(progress->get<double>());
    return data;
  }
  if (const auto error = json.find("error"); error != json.end() && error->is_object()) {
    const auto message = error->find("message");
    data.set_error(message != error->end() && message->is_string()
                       ? message->get<std::string>()
                       : "data preparation failed without a reason");
    const auto user_error = error->find("user_error");
    data.set_user_error(user_error != error->end() && user_error->is_boolean() &&
                        user_error->get<bool>());
    return data;
  }
  if (const auto result = json.find("result"); result != json.end() && result->is_object()) {
    if (const auto status = Parse(result->dump(), &data); !status.ok()) return status;
    data.set_ready(true);
    return data;
  }
  return absl::InvalidArgumentError("neither progress nor result nor error");
}

}  // namespace switchyard::agent
