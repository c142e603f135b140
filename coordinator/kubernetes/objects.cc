#include "coordinator/kubernetes/objects.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/kubernetes/config.h"

namespace switchyard::coordinator {
namespace {

using launch::v1::KubernetesConfig;

constexpr char kStoreLabel[] = "switchyard.dev/store";
constexpr char kJobLabel[] = "switchyard.dev/job-uid";
constexpr char kEpochLabel[] = "switchyard.dev/epoch";
constexpr char kNodeLabel[] = "switchyard.dev/node";
constexpr char kNameAnnotation[] = "switchyard.dev/job";
constexpr int kUnreachableSeconds = 30;

std::string Quantity(double gib) { return absl::StrCat(static_cast<int64_t>(gib * 1024), "Mi"); }

Json AttemptLabels(const std::string& store_id, const AttemptKey& attempt) {
  return {{"app.kubernetes.io/name", "switchyard-agent"},
          {"app.kubernetes.io/managed-by", "switchyard-coordinator"},
          {kStoreLabel, store_id},
          {kJobLabel, attempt.first},
          {kEpochLabel, absl::StrCat(attempt.second)}};
}

// Labels and annotations of a Job and of its pod.
Json Metadata(const KubernetesConfig& config, const std::string& store_id,
              const Allocation& allocation, int index) {
  Json labels = Json::object();
  for (const auto& [key, value] : config.labels()) labels[key] = value;
  labels.update(AttemptLabels(store_id, allocation.attempt));
  labels[kNodeLabel] = absl::StrCat(index);
  Json annotations = Json::object();
  for (const auto& [key, value] : config.annotations()) annotations[key] = value;
  annotations[kNameAnnotation] = allocation.job;
  return {{"labels", std::move(labels)}, {"annotations", std::move(annotations)}};
}

Json Arguments(const KubernetesConfig& config, const Allocation& allocation, int index,
               const std::string& name) {
  Json arguments = {"--coordinator", config.coordinator(),
                    "--for-attempt", AllocationName(allocation.attempt),
                    "--node",        AllocatedNodeName(allocation.attempt, index),
                    "--work-dir",    absl::StrCat(config.work_dir(), "/", name),
                    "--metrics",     config.metrics().empty() ? "off" : config.metrics()};
  if (config.nodes().device() == "cpu") {
    arguments.push_back("--cpu-slots");
    arguments.push_back(absl::StrCat(allocation.slots_per_node));
  }
  for (const std::string& argument : config.agent_arguments()) arguments.push_back(argument);
  return arguments;
}

Json Resources(const KubernetesConfig& config, int slots) {
  const launch::v1::NodeShape& shape = config.nodes();
  Json requests = {{"cpu", absl::StrCat(std::max(1, shape.cpu_cores() * slots / shape.slots()))}};
  Json limits = Json::object();
  if (shape.device() == "cuda") {
    requests[config.gpu_resource()] = absl::StrCat(slots);
    limits[config.gpu_resource()] = absl::StrCat(slots);
  } else {
    requests["memory"] = limits["memory"] = Quantity(shape.slot_memory_gib() * slots);
  }
  return {{"requests", std::move(requests)}, {"limits", std::move(limits)}};
}

Json Container(const KubernetesConfig& config, const Allocation& allocation, int index,
               const std::string& name) {
  Json container = {
      {"name", "agent"},
      {"image", config.image()},
      {"command", Json(std::vector<std::string>(config.agent_command().begin(),
                                                config.agent_command().end()))},
      {"args", Arguments(config, allocation, index, name)},
      // Nothing of the image is written; what asks for a home gets one that is gone with the pod.
      {"env", Json::array({{{"name", "HOME"}, {"value", "/tmp"}}})},
      {"resources", Resources(config, allocation.slots_per_node)},
      // The end of its log is what the coordinator tells when it fails.
      {"terminationMessagePolicy", "FallbackToLogsOnError"},
      {"securityContext",
       {{"allowPrivilegeEscalation", false},
        {"readOnlyRootFilesystem", true},
        {"capabilities", {{"drop", Json::array({"ALL"})}}}}},
      {"volumeMounts", Json::array({{{"name", "work"}, {"mountPath", config.work_dir()}},
                                    {{"name", "tmp"}, {"mountPath", "/tmp"}},
                                    {{"name", "shm"}, {"mountPath", "/dev/shm"}}})}};
  if (!config.metrics().empty()) {
    int port = 0;
    if (absl::SimpleAtoi(config.metrics().substr(config.metrics().rfind(':') + 1), &port))
      container["ports"] = Json::array({{{"name", "metrics"}, {"containerPort", port}}});
  }
  Merge(container, JsonOf(config.container()));
  return container;
}

Json SharedMemory(const KubernetesConfig& config) {
  // Ranks of several pods of one machine meet in its own.
  if (config.nodes().one_machine())
    return {{"name", "shm"}, {"hostPath", {{"path", "/dev/shm"}, {"type", "Directory"}}}};
  Json directory = {{"medium", "Memory"}};
  if (config.shared_memory_gib() > 0) directory["sizeLimit"] = Quantity(config.shared_memory_gib());
  return {{"name", "shm"}, {"emptyDir", std::move(directory)}};
}

Json Unreachable(const char* key) {
  return {{"key", key},
          {"operator", "Exists"},
          {"effect", "NoExecute"},
          {"tolerationSeconds", kUnreachableSeconds}};
}

Json PodSpec(const KubernetesConfig& config, const std::string& store_id,
             const Allocation& allocation, int index, const std::string& name) {
  Json pod = {{"restartPolicy", "Never"},
              {"hostname", absl::StrCat("node-", index)},
              {"subdomain", ServiceNameOf(store_id, allocation.attempt)},
              // Agents know the coordinator, not the cluster.
              {"automountServiceAccountToken", false},
              {"enableServiceLinks", false},
              {"terminationGracePeriodSeconds", config.grace_seconds()},
              {"securityContext",
               {{"runAsNonRoot", true}, {"seccompProfile", {{"type", "RuntimeDefault"}}}}},
              {"tolerations", Json::array({Unreachable("node.kubernetes.io/unreachable"),
                                           Unreachable("node.kubernetes.io/not-ready")})},
              {"containers", Json::array({Container(config, allocation, index, name)})},
              {"volumes", Json::array({{{"name", "work"}, {"emptyDir", Json::object()}},
                                       {{"name", "tmp"}, {"emptyDir", Json::object()}},
                                       SharedMemory(config)})}};
  Merge(pod, JsonOf(config.pod()));
  return pod;
}

std::string LabelOf(const Json& object, const char* label) {
  return TextAt(object, {"metadata", "labels", label});
}

}  // namespace

std::string ServiceNameOf(const std::string& store_id, const AttemptKey& attempt) {
  return absl::StrFormat("switchyard-%s-%s-e%d", store_id, attempt.first, attempt.second);
}

std::string JobNameOf(const std::string& store_id, const NodePlace& place) {
  return absl::StrCat(ServiceNameOf(store_id, place.attempt), "-", place.index);
}

std::string SelectorOf(const std::string& store_id) {
  return absl::StrCat(kStoreLabel, "=", store_id);
}

std::optional<NodePlace> PlaceOf(const std::string& store_id, const Json& object) {
  NodePlace place;
  place.attempt.first = LabelOf(object, kJobLabel);
  if (LabelOf(object, kStoreLabel) != store_id || place.attempt.first.empty() ||
      !absl::SimpleAtoi(LabelOf(object, kEpochLabel), &place.attempt.second) ||
      !absl::SimpleAtoi(LabelOf(object, kNodeLabel), &place.index)) {
    return std::nullopt;
  }
  return place;
}

absl::Status CheckOwner(const std::string& store_id, const NodePlace& place, const Json& job) {
  if (PlaceOf(store_id, job) == place) return absl::OkStatus();
  const std::string store = LabelOf(job, kStoreLabel);
  return absl::FailedPreconditionError(absl::StrCat(
      "Kubernetes Job ", TextAt(job, {"metadata", "name"}),
      " exists and is not this coordinator's (label ", kStoreLabel, " is \"", store, "\", not \"",
      store_id,
      "\", or the others are of another attempt): it is left alone; delete it, then `switchyard "
      "retry`"));
}

Json JobObject(const KubernetesConfig& config, const ServerVersion& version,
               const std::string& store_id, const Allocation& allocation, int index) {
  const std::string name = JobNameOf(store_id, {allocation.attempt, index});
  Json metadata = Metadata(config, store_id, allocation, index);
  Json spec = {
      {"parallelism", 1},
      {"completions", 1},
      {"backoffLimit", 0},  // the coordinator restarts attempts; Kubernetes must not
      {"template",
       {{"metadata", metadata}, {"spec", PodSpec(config, store_id, allocation, index, name)}}}};
  if (version.AtLeast(26)) {
    // Says in the Job's condition that the pod was taken away, after the pod itself is gone.
    spec["podFailurePolicy"] = {
        {"rules", Json::array({{{"action", "FailJob"},
                                {"onPodConditions", Json::array({{{"type", "DisruptionTarget"},
                                                                  {"status", "True"}}})}}})}};
  }
  // Never two agents of one node, one of them still ending.
  if (version.AtLeast(29)) spec["podReplacementPolicy"] = "Failed";
  metadata["name"] = name;
  // No ttlSecondsAfterFinished: a coordinator that was away for longer would make the Job again.
  return {{"apiVersion", "batch/v1"},
          {"kind", "Job"},
          {"metadata", std::move(metadata)},
          {"spec", std::move(spec)}};
}

Json ServiceObject(const std::string& store_id, const AttemptKey& attempt, const Json& job) {
  const Json labels = AttemptLabels(store_id, attempt);
  return {{"apiVersion", "v1"},
          {"kind", "Service"},
          {"metadata",
           {{"name", ServiceNameOf(store_id, attempt)},
            {"labels", labels},
            {"ownerReferences", Json::array({{{"apiVersion", "batch/v1"},
                                              {"kind", "Job"},
                                              {"name", TextAt(job, {"metadata", "name"})},
                                              {"uid", TextAt(job, {"metadata", "uid"})}}})}}},
          {"spec",
           {{"clusterIP", "None"},
            {"publishNotReadyAddresses", true},
            {"selector",
             {{kStoreLabel, store_id},
              {kJobLabel, attempt.first},
              {kEpochLabel, absl::StrCat(attempt.second)}}}}}};
}

void Merge(Json& base, const Json& over) {
  if (base.is_object() && over.is_object()) {
    for (const auto& [key, value] : over.items()) Merge(base[key], value);
  } else if (base.is_array() && over.is_array()) {
    for (const Json& element : over) {
      // One volume may be mounted in several places.
      const char* key = element.contains("mountPath") ? "mountPath" : "name";
      const std::string name = TextAt(element, {key});
      const auto same = std::find_if(base.begin(), base.end(), [&](const Json& other) {
        return !name.empty() && TextAt(other, {key}) == name;
      });
      if (same == base.end()) {
        base.push_back(element);
      } else {
        *same = element;
      }
    }
  } else {
    base = over;
  }
}

}  // namespace switchyard::coordinator
