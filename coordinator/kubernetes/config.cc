#include "coordinator/kubernetes/config.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/launch/cluster_config.h"

namespace switchyard::coordinator {
namespace {

using launch::v1::KubernetesConfig;

// A DNS label, as namespaces are.
bool IsLabel(const std::string& text) {
  return !text.empty() && text.size() <= 63 && text.front() != '-' && text.back() != '-' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return c == '-' || absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
                  absl::ascii_islower(static_cast<unsigned char>(c));
         });
}

// The port of "HOST:PORT"; 0 when it has none.
int PortOf(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return 0;
  int port = 0;
  return absl::SimpleAtoi(address.substr(colon + 1), &port) && port > 0 && port < 65536 ? port : 0;
}

void Default(std::string value, std::string* field) {
  if (field->empty()) *field = std::move(value);
}

void SetDefaults(KubernetesConfig& config) {
  if (config.agent_command().empty()) config.add_agent_command("/usr/bin/switchyard-agent");
  Default("/var/lib/switchyard/work", config.mutable_work_dir());
  Default("nvidia.com/gpu", config.mutable_gpu_resource());
  if (config.grace_seconds() == 0) config.set_grace_seconds(60);
  if (config.start_seconds() == 0) config.set_start_seconds(900);
  if (config.keep_finished_seconds() == 0) config.set_keep_finished_seconds(3600);
  if (config.poll_seconds() == 0) config.set_poll_seconds(5);
}

void CheckApiServer(const KubernetesConfig& config, std::vector<std::string>* problems) {
  if (!config.has_api_server()) return;
  const launch::v1::ApiServer& server = config.api_server();
  if (!absl::StartsWith(server.url(), "https://") || server.url().size() < 9)
    problems->push_back(Fault("api_server.url", server.url(),
                              "give https://HOST:PORT; a token is sent over TLS only"));
  for (const auto& [name, path] :
       {std::pair("ca_file", &server.ca_file()), std::pair("token_file", &server.token_file())}) {
    if (!absl::StartsWith(*path, "/"))
      problems->push_back(Fault(absl::StrCat("api_server.", name), *path, "give an absolute path"));
  }
  if (config.namespace_().empty())
    problems->push_back(Fault("namespace", "", "api_server needs it, there is no own one"));
}

// What the launcher must decide itself.
void CheckOverlay(const char* field, const google::protobuf::Struct& fields,
                  std::initializer_list<const char*> reserved, std::vector<std::string>* problems) {
  for (const char* name : reserved) {
    if (fields.fields().count(name) > 0) {
      problems->push_back(absl::StrCat(field, ".", name, ": the coordinator sets it; take it out"));
    }
  }
}

void Check(const KubernetesConfig& config, std::vector<std::string>* problems) {
  const auto expect = [&](bool good, const char* field, const auto& value, const char* fix) {
    if (!good) problems->push_back(Fault(field, value, fix));
  };
  expect(PortOf(config.coordinator()) > 0, "coordinator", config.coordinator(),
         "give HOST:PORT at which pods reach the coordinator");
  CheckNodeShape(config.nodes(), problems);
  expect(!config.image().empty(), "image", config.image(), "the image of the agents");
  expect(config.namespace_().empty() || IsLabel(config.namespace_()), "namespace",
         config.namespace_(), "lower case letters, digits and '-', at most 63");
  CheckApiServer(config, problems);
  expect(absl::StartsWith(config.work_dir(), "/"), "work_dir", config.work_dir(),
         "give an absolute path");
  expect(config.metrics().empty() || PortOf(config.metrics()) > 0, "metrics", config.metrics(),
         "give HOST:PORT in the pod, as 0.0.0.0:9465");
  expect(config.shared_memory_gib() >= 0, "shared_memory_gib", config.shared_memory_gib(),
         "not negative");
  for (const auto& [name, seconds] :
       {std::pair("grace_seconds", config.grace_seconds()),
        std::pair("start_seconds", config.start_seconds()),
        std::pair("keep_finished_seconds", config.keep_finished_seconds()),
        std::pair("poll_seconds", config.poll_seconds())}) {
    expect(seconds >= 1, name, seconds, "at least 1");
  }
  for (const auto* map : {&config.labels(), &config.annotations()}) {
    for (const auto& [key, value] : *map) {
      if (absl::StartsWith(key, "switchyard.dev/"))
        problems->push_back(absl::StrCat("labels and annotations: ", key, " is the coordinator's"));
    }
  }
  CheckOverlay("pod", config.pod(), {"containers", "hostname", "restartPolicy", "subdomain"},
               problems);
  CheckOverlay("container", config.container(), {"args", "command", "image", "name"}, problems);
}

}  // namespace

absl::StatusOr<KubernetesConfig> ReadKubernetesConfig(const std::string& path) {
  KubernetesConfig config;
  std::vector<std::string> problems;
  SWITCHYARD_RETURN_IF_ERROR(ReadConfigFile("--kubernetes", path, &config, &problems));
  SetDefaults(config);
  Check(config, &problems);
  SWITCHYARD_RETURN_IF_ERROR(ConfigError("--kubernetes", path, problems));
  return config;
}

Json JsonOf(const google::protobuf::Struct& fields) {
  std::string text;
  // Protobuf writes whole numbers as such, although a Struct has only doubles.
  const auto written = google::protobuf::util::MessageToJsonString(fields, &text);
  return written.ok() ? Json::parse(text, nullptr, /*allow_exceptions=*/false) : Json::object();
}

}  // namespace switchyard::coordinator
