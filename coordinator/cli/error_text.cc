#include "coordinator/cli/error_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "coordinator/cli/text_table.h"
#include "google/rpc/error_details.pb.h"

namespace switchyard::coordinator {
namespace {

template <typename Detail>
bool Unpack(const absl::Status& status, Detail& detail) {
  const auto payload =
      status.GetPayload(absl::StrCat("type.googleapis.com/", Detail::descriptor()->full_name()));
  return payload.has_value() && detail.ParseFromString(std::string(*payload));
}

// With others the message says what to do.
bool IsServersFault(absl::StatusCode code) {
  return code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kDataLoss;
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

std::string ErrorText(const absl::Status& status, bool color) {
  const std::string message(status.message());
  std::string text = color ? "\033[1;31merror\033[0m: " : "error: ";
  google::rpc::BadRequest bad_request;
  if (Unpack(status, bad_request) && bad_request.field_violations_size() > 0) {
    // The message repeats the violations for clients without details; here they are set out once.
    absl::StrAppend(&text, FirstLine(message), "\n");
    TextTable table;
    for (const auto& violation : bad_request.field_violations()) {
      table.AddRow({violation.field(), violation.description()});
    }
    absl::StrAppend(&text, table.Render("  "));
  } else {
    absl::StrAppend(&text, message.empty() ? absl::StatusCodeToString(status.code()) : message,
                    "\n");
  }
  google::rpc::PreconditionFailure precondition;
  if (Unpack(status, precondition)) {
    for (const auto& violation : precondition.violations()) {
      if (message.find(violation.description()) == std::string::npos) {
        absl::StrAppend(&text, "  ", violation.type(), ": ", violation.description(), "\n");
      }
    }
  }
  google::rpc::ErrorInfo info;
  if (IsServersFault(status.code()) && Unpack(status, info) && info.metadata().count("trace_id"))
    absl::StrAppend(&text, "  trace ", info.metadata().at("trace_id"),
                    ": the coordinator's log says more\n");
  google::rpc::Help help;
  if (Unpack(status, help)) {
    for (const auto& link : help.links()) {
      absl::StrAppend(&text, "  ", link.description(), " ", link.url(), "\n");
    }
  }
  return text;
}

std::string ErrorJson(const absl::Status& status) {
  nlohmann::ordered_json error;
  error["code"] = absl::StatusCodeToString(status.code());
  google::rpc::ErrorInfo info;
  if (Unpack(status, info)) {
    error["reason"] = info.reason();
    if (info.metadata().count("trace_id")) error["trace_id"] = info.metadata().at("trace_id");
  }
  error["message"] = std::string(status.message());
  google::rpc::BadRequest bad_request;
  if (Unpack(status, bad_request)) {
    error["violations"] = nlohmann::ordered_json::array();
    for (const auto& violation : bad_request.field_violations()) {
      error["violations"].push_back(
          {{"field", violation.field()}, {"description", violation.description()}});
    }
  }
  const nlohmann::ordered_json document{{"error", error}};
  return document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace switchyard::coordinator
