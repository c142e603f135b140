#include "coordinator/access/request_facts.h"

#include <google/protobuf/descriptor.h>

#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/security/roles.h"
#include "switchyard/agent/v1/agent.pb.h"
#include "switchyard/v1/access.pb.h"
#include "switchyard/v1/checkpoint.pb.h"
#include "switchyard/v1/job_service.pb.h"
#include "switchyard/v1/node.pb.h"

namespace switchyard::coordinator {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

std::string TextField(const Message& message, const char* field) {
  const FieldDescriptor* descriptor = message.GetDescriptor()->FindFieldByName(field);
  if (descriptor == nullptr || descriptor->is_repeated() ||
      descriptor->type() != FieldDescriptor::TYPE_STRING) {
    return "";
  }
  return message.GetReflection()->GetString(message, descriptor);
}

using Methods = std::map<const google::protobuf::Descriptor*, const MethodDescriptor*>;

Methods AllMethods() {
  Methods methods;
  for (const auto* message :
       {v1::GetJobRequest::descriptor(), v1::GetNodeRequest::descriptor(),
        v1::GetCheckpointRequest::descriptor(), v1::GetCallerRequest::descriptor(),
        agent::v1::ConnectRequest::descriptor()}) {
    const google::protobuf::FileDescriptor* file = message->file();
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        const MethodDescriptor* method = file->service(s)->method(m);
        methods[method->input_type()] = method;
      }
    }
  }
  return methods;
}

// Null when there is none.
const MethodDescriptor* Find(const Message& request) {
  static const auto& methods = *new Methods(AllMethods());
  const auto it = methods.find(request.GetDescriptor());
  return it == methods.end() ? nullptr : it->second;
}

}  // namespace

std::string MethodOf(const Message& request) {
  const MethodDescriptor* method = Find(request);
  if (method == nullptr) return "";
  return absl::StrCat(method->service()->full_name(), "/", method->name());
}

bool AnswersWithStream(const Message& request) {
  const MethodDescriptor* method = Find(request);
  return method != nullptr && method->server_streaming();
}

std::string ResourceOf(const Message& request) {
  for (const char* field : {"name", "parent"}) {
    if (std::string text = TextField(request, field); !text.empty()) return text;
  }
  const FieldDescriptor* spec = request.GetDescriptor()->FindFieldByName("spec");
  if (spec == nullptr || spec->message_type() != v1::JobSpec::descriptor()) return "";
  const auto& job =
      static_cast<const v1::JobSpec&>(request.GetReflection()->GetMessage(request, spec));
  const std::string id = TextField(request, "job_id");
  return absl::StrCat("projects/", job.project().empty() ? "default" : job.project(), "/jobs/",
                      id.empty() ? job.name() : id);
}

std::string ProjectOf(const std::string& resource) {
  constexpr absl::string_view kPrefix = "projects/";
  if (!absl::StartsWith(resource, kPrefix)) return security::kAllProjects;
  const std::string rest = resource.substr(kPrefix.size());
  const std::string project = rest.substr(0, rest.find('/'));
  return project.empty() || project == "-" ? security::kAllProjects : project;
}

}  // namespace switchyard::coordinator
