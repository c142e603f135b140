// What is asked of Kubernetes for an attempt, and the file that says how.
#include "coordinator/kubernetes/objects.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "coordinator/kubernetes/config.h"

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kGpuFile[] = R"({"coordinator": "switchyard.ns.svc:7070", "image": "registry/node:1",
  "nodes": {"count": 2, "device": "cuda", "slots": 8, "product": "NVIDIA H200",
            "slot_memory_gib": 140, "cpu_cores": 96},
  "agent_arguments": ["--tls-dir", "/etc/tls"], "metrics": "0.0.0.0:9465",
  "labels": {"team": "llm"}, "annotations": {"note": "x"}, "shared_memory_gib": 64,
  "pod": {"nodeSelector": {"gpu": "h200"}, "securityContext": {"fsGroup": 10001},
          "tolerations": [{"key": "gpu", "operator": "Exists"}],
          "volumes": [{"name": "tls", "secret": {"secretName": "agent-tls"}},
                      {"name": "work", "emptyDir": {"sizeLimit": "10Gi"}}]},
  "container": {"resources": {"limits": {"memory": "1Ti"}},
                "volumeMounts": [{"name": "tls", "mountPath": "/etc/tls"},
                                 {"name": "tls", "mountPath": "/etc/other", "subPath": "x"},
                                 {"name": "fast", "mountPath": "/tmp"}]}})";
const AttemptKey kAttempt = {"0123456789abcdef01234567", 3};
constexpr char kStore[] = "fedcba9876543210";

absl::StatusOr<launch::v1::KubernetesConfig> Read(const std::string& text) {
  std::string pattern = (fs::temp_directory_path() / "switchyard-kubernetes.XXXXXX").string();
  const int fd = mkstemp(pattern.data());
  EXPECT_GE(fd, 0);
  close(fd);
  std::ofstream(pattern) << text;
  auto config = ReadKubernetesConfig(pattern);
  fs::remove(pattern);
  return config;
}

Json JobOf(const std::string& file, int minor, int index = 1) {
  const auto config = Read(file);
  EXPECT_TRUE(config.ok()) << config.status();
  Allocation allocation;
  allocation.attempt = kAttempt;
  allocation.job = "projects/default/jobs/demo";
  allocation.nodes = 2;
  allocation.slots_per_node = 4;
  return JobObject(*config, {1, minor}, kStore, allocation, index);
}

TEST(KubernetesObjectsTest, ANodeIsAJobOfOnePodWhoseAgentKnowsItsNameAndAttempt) {
  const Json job = JobOf(kGpuFile, 20);
  EXPECT_EQ(TextAt(job, {"apiVersion"}), "batch/v1");
  EXPECT_EQ(TextAt(job, {"metadata", "name"}),
            "switchyard-fedcba9876543210-0123456789abcdef01234567-e3-1");
  EXPECT_LE(TextAt(job, {"metadata", "name"}).size(), 63u);
  for (const char* number : {"parallelism", "completions"})
    EXPECT_EQ(NumberAt(job, {"spec", number}), 1) << number;
  EXPECT_EQ(NumberAt(job, {"spec", "backoffLimit"}, -1), 0);
  EXPECT_FALSE(At(job, {"spec"}).contains("ttlSecondsAfterFinished"));
  const Json& pod = At(job, {"spec", "template", "spec"});
  EXPECT_EQ(TextAt(pod, {"restartPolicy"}), "Never");
  EXPECT_EQ(TextAt(pod, {"hostname"}), "node-1");
  EXPECT_EQ(TextAt(pod, {"subdomain"}), ServiceNameOf(kStore, kAttempt));
  const Json& agent = ListAt(pod, {"containers"})[0];
  EXPECT_EQ(At(agent, {"command"}), Json::array({"/usr/bin/switchyard-agent"}));
  EXPECT_EQ(At(agent, {"args"}),
            Json::array({"--coordinator", "switchyard.ns.svc:7070", "--for-attempt",
                         "0123456789abcdef01234567/3", "--node", "0123456789abcdef01234567-e3-1",
                         "--work-dir",
                         "/var/lib/switchyard/work/"
                         "switchyard-fedcba9876543210-0123456789abcdef01234567-e3-1",
                         "--metrics", "0.0.0.0:9465", "--tls-dir", "/etc/tls"}));
  EXPECT_EQ(NumberAt(ListAt(agent, {"ports"})[0], {"containerPort"}), 9465);
}

TEST(KubernetesObjectsTest, ThePodMayDoNothingThatAnAgentDoesNotNeed) {
  const Json job = JobOf(kGpuFile, 20);
  const Json& pod = At(job, {"spec", "template", "spec"});
  EXPECT_EQ(At(pod, {"automountServiceAccountToken"}), Json(false));
  EXPECT_EQ(At(pod, {"securityContext"}), (Json{{"runAsNonRoot", true},
                                                {"seccompProfile", {{"type", "RuntimeDefault"}}},
                                                {"fsGroup", 10001}}));
  EXPECT_EQ(At(ListAt(pod, {"containers"})[0], {"securityContext"}),
            (Json{{"allowPrivilegeEscalation", false},
                  {"readOnlyRootFilesystem", true},
                  {"capabilities", {{"drop", Json::array({"ALL"})}}}}));
}

TEST(KubernetesObjectsTest, GpusAreLimitsAndCpuSlotsAreCoresAndMemory) {
  const auto resources = [](const Json& job) {
    return At(ListAt(job, {"spec", "template", "spec", "containers"})[0], {"resources"});
  };
  EXPECT_EQ(resources(JobOf(kGpuFile, 20)),
            (Json{{"requests", {{"cpu", "48"}, {"nvidia.com/gpu", "4"}}},
                  {"limits", {{"nvidia.com/gpu", "4"}, {"memory", "1Ti"}}}}));
  const Json job = JobOf(R"({"coordinator": "c:1", "image": "i", "nodes": {"count": 1,
      "device": "cpu", "slots": 4, "product": "CPU", "slot_memory_gib": 1.5, "cpu_cores": 8}})",
                         20);
  EXPECT_EQ(resources(job), (Json{{"requests", {{"cpu", "8"}, {"memory", "6144Mi"}}},
                                  {"limits", {{"memory", "6144Mi"}}}}));
  const Json& args = At(ListAt(job, {"spec", "template", "spec", "containers"})[0], {"args"});
  EXPECT_THAT(args.dump(), AllOf(HasSubstr(R"("--cpu-slots","4")"), HasSubstr(R"("off")")));
}

TEST(KubernetesObjectsTest, TheFilesFieldsAreLaidOverTheCoordinators) {
  const Json job = JobOf(kGpuFile, 20);
  const Json& pod = At(job, {"spec", "template", "spec"});
  EXPECT_EQ(TextAt(pod, {"nodeSelector", "gpu"}), "h200");
  EXPECT_EQ(ListAt(pod, {"tolerations"}).size(), 3u);
  EXPECT_EQ(At(pod, {"volumes"}),
            Json::array(
                {{{"name", "work"}, {"emptyDir", {{"sizeLimit", "10Gi"}}}},
                 {{"name", "tmp"}, {"emptyDir", Json::object()}},
                 {{"name", "shm"}, {"emptyDir", {{"medium", "Memory"}, {"sizeLimit", "65536Mi"}}}},
                 {{"name", "tls"}, {"secret", {{"secretName", "agent-tls"}}}}}));
  const Json& mounts = ListAt(ListAt(pod, {"containers"})[0], {"volumeMounts"});
  EXPECT_EQ(mounts,
            Json::array({{{"name", "work"}, {"mountPath", "/var/lib/switchyard/work"}},
                         {{"name", "fast"}, {"mountPath", "/tmp"}},
                         {{"name", "shm"}, {"mountPath", "/dev/shm"}},
                         {{"name", "tls"}, {"mountPath", "/etc/tls"}},
                         {{"name", "tls"}, {"mountPath", "/etc/other"}, {"subPath", "x"}}}));
  for (const Json* object : {&job, &At(job, {"spec", "template"})}) {
    EXPECT_EQ(TextAt(*object, {"metadata", "labels", "team"}), "llm");
    EXPECT_EQ(TextAt(*object, {"metadata", "labels", "switchyard.dev/store"}), kStore);
    EXPECT_EQ(TextAt(*object, {"metadata", "annotations", "switchyard.dev/job"}),
              "projects/default/jobs/demo");
    EXPECT_EQ(PlaceOf(kStore, *object), (NodePlace{kAttempt, 1}));
  }
  EXPECT_EQ(PlaceOf("0000000000000000", job), std::nullopt);
}

TEST(KubernetesObjectsTest, FieldsThatTheServerDoesNotKnowAreLeftOut) {
  const Json old = At(JobOf(kGpuFile, 20), {"spec"});
  EXPECT_FALSE(old.contains("podFailurePolicy") || old.contains("podReplacementPolicy"));
  const Json middle = At(JobOf(kGpuFile, 27), {"spec"});
  EXPECT_TRUE(middle.contains("podFailurePolicy") && !middle.contains("podReplacementPolicy"));
  EXPECT_EQ(TextAt(JobOf(kGpuFile, 34), {"spec", "podReplacementPolicy"}), "Failed");
}

TEST(KubernetesObjectsTest, TheServiceNamesThePodsAndGoesWithTheFirstJob) {
  const Json first = {{"metadata", {{"name", "j-0"}, {"uid", "u"}}}};
  const Json service = ServiceObject(kStore, kAttempt, first);
  EXPECT_EQ(TextAt(service, {"spec", "clusterIP"}), "None");
  EXPECT_EQ(At(service, {"spec", "publishNotReadyAddresses"}), Json(true));
  EXPECT_EQ(TextAt(ListAt(service, {"metadata", "ownerReferences"})[0], {"uid"}), "u");
  const Json labels = At(JobOf(kGpuFile, 20), {"spec", "template", "metadata", "labels"});
  for (const auto& [key, value] : At(service, {"spec", "selector"}).items())
    EXPECT_EQ(At(labels, {key.c_str()}), value) << key;
}

TEST(KubernetesObjectsTest, AWrongFileIsRefusedWithEveryFault) {
  const absl::Status bad = Read(R"({"coordinator": "nowhere", "namespace": "Not_A_Label",
    "api_server": {"url": "http://plain:80", "ca_file": "ca"}, "metrics": "9465",
    "nodes": {"count": 0, "device": "tpu", "slots": 8, "product": "x", "slot_memory_gib": 1,
              "cpu_cores": 4},
    "labels": {"switchyard.dev/store": "mine"}, "poll_seconds": -1,
    "pod": {"containers": []}, "container": {"image": "other"}, "nodez": 1})")
                               .status();
  for (const char* fault :
       {"coordinator is \"nowhere\": give", "image is missing: the image",
        "namespace is \"Not_A_Label\":", "api_server.url is \"http://plain:80\":",
        "api_server.ca_file is \"ca\":", "api_server.token_file is missing:",
        "metrics is \"9465\":", "nodes.count is 0:", "nodes.device is \"tpu\":",
        "switchyard.dev/store", "poll_seconds is -1:", "pod.containers", "container.image",
        "nodez: there is no such field"}) {
    EXPECT_THAT(std::string(bad.message()), HasSubstr(fault));
  }
  EXPECT_THAT(std::string(bad.message()), Not(HasSubstr("grace_seconds")));
  EXPECT_FALSE(ReadKubernetesConfig("/nonexistent").ok());
}

}  // namespace
}  // namespace switchyard::coordinator
