#include "worker/agent/host/metrics.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>

#include "common/unique_fd.h"

namespace switchyard::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Body of GET /metrics at 127.0.0.1:PORT.
std::string Scrape(const std::string& address) {
  const int port = std::stoi(address.substr(address.rfind(':') + 1));
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(port));
  peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) != 0) return "";
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  if (send(fd.get(), request.data(), request.size(), 0) < 0) return "";
  std::string text;
  std::array<char, 4096> buffer;
  for (ssize_t n = 0; (n = recv(fd.get(), buffer.data(), buffer.size(), 0)) > 0;) {
    text.append(buffer.data(), static_cast<size_t>(n));
  }
  return text;
}

class AgentMetricsTest : public ::testing::Test {
 protected:
  AgentMetricsTest() { EXPECT_TRUE(metrics.Serve("127.0.0.1:0").ok()); }
  std::string Text() { return Scrape(metrics.address()); }
  AgentMetrics metrics;
};

TEST_F(AgentMetricsTest, ServesSlotsAndSessions) {
  metrics.Update(
      {.slots_total = 8, .slots_used = 3, .attempts_live = 2, .results_unacknowledged = 1}, true);
  metrics.SetDroppedReports(5);
  metrics.SetDroppedReports(7);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("\nswitchyard_agent_slots 8\n"));
  EXPECT_THAT(text, HasSubstr("\nswitchyard_agent_slots_used 3\n"));
  EXPECT_THAT(text, HasSubstr("\nswitchyard_agent_connected 1\n"));
  EXPECT_THAT(text, HasSubstr("\nswitchyard_agent_reports_dropped_total 7\n"));
}

TEST_F(AgentMetricsTest, AJobsSeriesGoWithTheJob) {
  for (const char* job : {"projects/default/jobs/one", "projects/default/jobs/two"}) {
    metrics.OnPeakMemory(job, 0, 4096);
    metrics.OnRankStarted(job, 1);
    metrics.OnRankStarted(job, 2);
  }
  EXPECT_THAT(Text(), HasSubstr(R"(job="one")"));
  metrics.ForgetJob("projects/default/jobs/one");
  EXPECT_THAT(Text(), Not(HasSubstr(R"(job="one")")));
  EXPECT_THAT(Text(),
              HasSubstr(R"(switchyard_agent_rank_restarts_total{job="two",project="default"} 1)"));
  EXPECT_THAT(
      Text(),
      HasSubstr(R"(switchyard_rank_peak_memory_bytes{job="two",project="default",rank="0"} 4096)"));
}

TEST_F(AgentMetricsTest, ATakenPortIsASentenceWithTheFlag) {
  AgentMetrics second;
  const auto status = second.Serve(metrics.address());
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("--metrics " + metrics.address()));
  EXPECT_TRUE(second.Serve("off").ok());
  EXPECT_EQ(second.address(), "");
}

}  // namespace
}  // namespace switchyard::agent
