#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "common/telemetry/metrics_page.h"
#include "common/telemetry/registry.h"

namespace switchyard::telemetry {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

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

TEST(MetricsPageTest, AnswersWithTheRegistryInPrometheusTextFormat) {
  Registry registry;
  registry.AddGauge("switchyard_nodes", "Nodes.").Set(2);
  const http::Response response = MetricsPage(registry)({});
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(response.body, HasSubstr("switchyard_nodes 2\n"));
}

}  // namespace
}  // namespace switchyard::telemetry
