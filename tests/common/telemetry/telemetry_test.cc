#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/telemetry/exposer.h"
#include "common/telemetry/registry.h"
#include "common/unique_fd.h"

namespace switchyard::telemetry {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string HttpGet(int port, const std::string& path) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return "";
  const std::string request = absl::StrCat("GET ", path, " HTTP/1.0\r\nHost: localhost\r\n\r\n");
  if (write(fd.get(), request.data(), request.size()) < 0) return "";
  std::string answer;
  char buffer[4096];
  ssize_t n;
  while ((n = read(fd.get(), buffer, sizeof buffer)) > 0) answer.append(buffer, n);
  return answer;
}

TEST(RegistryTest, WritesGaugesCountersAndHistogramsAsText) {
  Registry registry;
  const Gauge depth = registry.AddGauge("switchyard_queue_depth", "Jobs that wait.", {"project"});
  const Counter calls = registry.AddCounter("switchyard_rpcs_total", "Calls.", {"method", "code"});
  const Histogram seconds =
      registry.AddHistogram("switchyard_rpc_seconds", "Time of a call.", {0.1, 1}, {"method"});
  depth.Set(3, {"default"});
  depth.Add(-1, {"default"});
  calls.Increment(2, {"GetJob", "OK"});
  seconds.Observe(0.5, {"GetJob"});
  const std::string text = registry.Serialize();
  EXPECT_THAT(text, HasSubstr("switchyard_queue_depth{project=\"default\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE switchyard_rpcs_total counter"));
  EXPECT_THAT(text, HasSubstr("switchyard_rpcs_total{code=\"OK\",method=\"GetJob\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("switchyard_rpc_seconds_bucket{method=\"GetJob\",le=\"0.1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("switchyard_rpc_seconds_bucket{method=\"GetJob\",le=\"1\"} 1\n"));
}

TEST(RegistryTest, ASeriesWithoutLabelsIsThereBeforeItsFirstValue) {
  Registry registry;
  registry.AddCounter("switchyard_restarts_total", "Restarts.");
  EXPECT_THAT(registry.Serialize(), HasSubstr("switchyard_restarts_total 0\n"));
}

TEST(RegistryTest, RemovesTheSeriesOfOneJobInEveryFamilyAndLeavesTheOthers) {
  Registry registry;
  const Gauge loss = registry.AddGauge("switchyard_loss", "Loss.", {"project", "job"});
  const Counter phase =
      registry.AddCounter("switchyard_phase_seconds_total", "Time.", {"project", "job", "phase"});
  const Gauge nodes = registry.AddGauge("switchyard_nodes", "Nodes.", {"state"});
  loss.Set(1, {"p", "a"});
  loss.Set(2, {"p", "b"});
  loss.Set(3, {"q", "a"});
  phase.Increment(1, {"p", "a", "forward"});
  phase.Increment(1, {"p", "a", "backward"});
  nodes.Set(1, {"ready"});
  EXPECT_EQ(registry.RemoveSeries({{"project", "p"}, {"job", "a"}}), 3);
  const std::string text = registry.Serialize();
  EXPECT_THAT(text, Not(HasSubstr("{job=\"a\",project=\"p\"}")));
  EXPECT_THAT(text, Not(HasSubstr("phase=\"forward\"")));
  EXPECT_THAT(text, HasSubstr("switchyard_loss{job=\"b\",project=\"p\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("switchyard_loss{job=\"a\",project=\"q\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("switchyard_nodes{state=\"ready\"} 1\n"));
  loss.Set(7, {"p", "a"});  // a removed series can come back
  EXPECT_THAT(registry.Serialize(), HasSubstr("switchyard_loss{job=\"a\",project=\"p\"} 7\n"));
}

TEST(RegistryTest, DescribesWhatWasDeclaredInOrder) {
  Registry registry;
  registry.AddGauge("switchyard_b", "B.", {"x", "y"});
  registry.AddCounter("switchyard_a_total", "A.");
  const std::vector<MetricInfo> info = registry.Describe();
  ASSERT_EQ(info.size(), 2u);
  EXPECT_EQ(info[0].name, "switchyard_b");
  EXPECT_EQ(info[0].labels, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(info[1].type, MetricType::kCounter);
  EXPECT_EQ(info[1].help, "A.");
}

TEST(RegistryTest, SettingAndRemovingFromSeveralThreadsIsSafe) {
  Registry registry;
  const Gauge loss = registry.AddGauge("switchyard_loss", "Loss.", {"project", "job"});
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        loss.Set(i, {"p", "a"});
        if (i % 7 == 0) registry.RemoveSeries({{"job", "a"}});
        if (i % 50 == 0) registry.Serialize();
      }
    });
  }
  threads.clear();
  EXPECT_THAT(registry.Serialize(), HasSubstr("1999"));
}

TEST(RegistryDeathTest, RefusesNamesThatBreakTheConventions) {
  Registry registry;
  EXPECT_DEATH(registry.AddGauge("jobs", "Jobs."), "jobs");
  EXPECT_DEATH(registry.AddCounter("switchyard_jobs", "Jobs."), "switchyard_jobs");
  EXPECT_DEATH(registry.AddGauge("switchyard_jobs_total", "Jobs."), "switchyard_jobs_total");
}

TEST(ExposerTest, ServesTheRegistryOnAPortThatTheSystemChooses) {
  Registry registry;
  registry.AddGauge("switchyard_nodes", "Nodes.").Set(2);
  auto exposer = Exposer::Start(registry, "127.0.0.1:0");
  ASSERT_TRUE(exposer.ok()) << exposer.status();
  ASSERT_GT((*exposer)->port(), 0);
  EXPECT_EQ((*exposer)->address(), absl::StrCat("127.0.0.1:", (*exposer)->port()));
  EXPECT_THAT(HttpGet((*exposer)->port(), "/metrics"), HasSubstr("switchyard_nodes 2\n"));
}

TEST(ExposerTest, ATakenPortIsAClearError) {
  Registry registry;
  auto first = Exposer::Start(registry, "127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = Exposer::Start(registry, (*first)->address());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("cannot serve metrics on ", (*first)->address())));
}

TEST(ExposerTest, RefusesAnAddressThatIsNotHostAndPort) {
  Registry registry;
  for (const char* address :
       {"9464", "host:9464", "127.0.0.1:99999", "127.0.0.1:", ":1", "1.2.3:4"}) {
    EXPECT_EQ(Exposer::Start(registry, address).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
}

}  // namespace
}  // namespace switchyard::telemetry
