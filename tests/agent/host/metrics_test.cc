#include "worker/agent/host/metrics.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
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

// "`name` type label, label" of every family that a scrape shows, labels in alphabetical order.
std::set<std::string> Families(const std::string& text) {
  std::map<std::string, std::string> types;
  std::set<std::string> families;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() == 4 && words[1] == "TYPE") types[words[2]] = words[3];
    const size_t brace = line.find('{');
    const std::string name(line.substr(0, std::min(line.find(' '), brace)));
    if (!absl::StartsWith(name, "switchyard_")) continue;
    std::vector<std::string> labels;
    if (brace != absl::string_view::npos) {
      const auto inside = line.substr(brace + 1, line.find('}') - brace - 1);
      for (absl::string_view label : absl::StrSplit(inside, ',')) {
        labels.emplace_back(label.substr(0, label.find('=')));
      }
    }
    std::sort(labels.begin(), labels.end());
    families.insert(absl::StrCat("`", name, "` ", types[name], " ",
                                 labels.empty() ? "none" : absl::StrJoin(labels, ", ")));
  }
  return families;
}

// The same of the agent's table in docs/metrics.md.
std::set<std::string> DocumentedFamilies() {
  std::ifstream file(absl::StrCat(std::getenv("SWITCHYARD_SOURCE_DIR"), "/docs/metrics.md"));
  std::set<std::string> rows;
  bool agent = false;
  for (std::string line; std::getline(file, line);) {
    if (absl::StartsWith(line, "## ")) agent = line == "## Agent";
    if (!agent || !absl::StartsWith(line, "| `")) continue;
    std::vector<std::string> cells;
    for (absl::string_view cell : absl::StrSplit(line, '|')) {
      cells.emplace_back(absl::StripAsciiWhitespace(cell));
    }
    std::vector<std::string> labels = absl::StrSplit(cells[4], ", ");
    std::sort(labels.begin(), labels.end());
    rows.insert(absl::StrCat(cells[1], " ", cells[2], " ", absl::StrJoin(labels, ", ")));
  }
  return rows;
}

TEST_F(AgentMetricsTest, TheDocumentDescribesExactlyWhatIsExported) {
  metrics.Update({.slots_total = 1}, true);
  metrics.OnRankStarted("projects/default/jobs/one", 2);
  metrics.OnPeakMemory("projects/default/jobs/one", 0, 4096);
  metrics.OnRankEnded(true);
  metrics.OnSessionLost();
  metrics.OnBadLine();
  EXPECT_EQ(DocumentedFamilies(), Families(Text()));
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
