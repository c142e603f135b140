#include "coordinator/cli/doctor_checks.h"

#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/units.h"
#include "coordinator/cli/text_table.h"

namespace switchyard::coordinator {
namespace {

constexpr absl::Duration kMostSkew = absl::Seconds(2);
constexpr absl::Duration kRenewBefore = absl::Hours(24 * 7);

std::string ShortNode(const v1::Node& node) {
  return node.name().substr(node.name().rfind('/') + 1);
}

}  // namespace

std::vector<HealthCheck> CheckVersions(const std::string& mine, const ServerFacts& server,
                                       const std::vector<v1::Node>& nodes) {
  std::vector<HealthCheck> checks;
  std::map<std::string, std::vector<std::string>> agents;
  for (const v1::Node& node : nodes) {
    if (node.state() != v1::NODE_STATE_LOST)
      agents[node.agent_version()].push_back(ShortNode(node));
  }
  if (server.version != mine) {
    checks.push_back({"versions", Health::kWarning,
                      absl::StrCat("this program is ", mine, ", the coordinator ",
                                   server.version.empty() ? "older than 0.1.0" : server.version),
                      "use the CLI of the coordinator's version"});
  }
  for (const auto& [version, names] : agents) {
    if (version == server.version) continue;
    checks.push_back({"versions", Health::kWarning,
                      absl::StrCat("the coordinator is ", server.version, ", the agents on ",
                                   absl::StrJoin(names, ", "), " are ", version),
                      "upgrade the coordinator first, then each agent; the one before works "
                      "meanwhile"});
  }
  if (checks.empty()) {
    checks.push_back({"versions", Health::kOk,
                      absl::StrCat("CLI, coordinator and ", nodes.size(), " agents are ", mine),
                      ""});
  }
  return checks;
}

HealthCheck CheckUnanswered(const absl::Status& error) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(error.message(), absl::MaxSplits('\n', 1));
  if (parts.second.empty()) {
    return {"coordinator", Health::kFailed, parts.first,
            "the message says what the coordinator refused"};
  }
  std::string fix = parts.second;
  absl::RemoveExtraAsciiWhitespace(&fix);
  return {"coordinator", Health::kFailed, parts.first, fix};
}

HealthCheck CheckSkew(const ServerFacts& server) {
  const double ahead = absl::ToDoubleSeconds(server.clock_ahead);
  const std::string found = absl::StrFormat(
      "the coordinator's clock is %.3f s %s this one's (+- %.3f s)", std::abs(ahead),
      ahead >= 0 ? "ahead of" : "behind", absl::ToDoubleSeconds(server.uncertainty));
  if (absl::AbsDuration(server.clock_ahead) <= kMostSkew + server.uncertainty)
    return {"clock_skew", Health::kOk, found, ""};
  return {"clock_skew", Health::kFailed, found,
          "run chrony or systemd-timesyncd on both machines: tokens, certificates and logs depend "
          "on the time"};
}

std::vector<HealthCheck> CheckNodes(const std::vector<v1::Node>& nodes, absl::Time now) {
  if (nodes.empty()) {
    return {{"nodes", Health::kFailed, "no agent is known",
             "start switchyard-agent --coordinator HOST:PORT on each machine"}};
  }
  std::vector<HealthCheck> checks;
  int ready = 0;
  for (const v1::Node& node : nodes) {
    const std::string since =
        node.has_last_heartbeat_time()
            ? absl::StrCat("was last heard ",
                           FormatDuration(absl::ToDoubleSeconds(
                               now - absl::FromUnixSeconds(node.last_heartbeat_time().seconds()))),
                           " ago")
            : "has not been heard since the coordinator started";
    if (node.state() == v1::NODE_STATE_READY) {
      ++ready;
      continue;
    }
    checks.push_back({"nodes", Health::kFailed, absl::StrCat(ShortNode(node), " ", since),
                      absl::StrCat("on that machine: does switchyard-agent run, and what does its "
                                   "log end with? `switchyard-agent doctor` looks at the machine. "
                                   "Gone for good: `switchyard node forget ",
                                   ShortNode(node), "`")});
  }
  checks.push_back(
      {"nodes", Health::kOk, absl::StrCat(ready, " of ", nodes.size(), " nodes are ready"), ""});
  return checks;
}

HealthCheck CheckCertificate(const std::string& where,
                             const absl::StatusOr<security::CertificateInfo>& certificate,
                             absl::Time now) {
  if (!certificate.ok()) {
    return {"certificates", Health::kFailed, std::string(certificate.status().message()),
            "issue a new one: docs/operations.md says how"};
  }
  const std::string date =
      absl::FormatTime("%Y-%m-%d %H:%M", certificate->not_after, absl::UTCTimeZone());
  if (certificate->not_after - now < kRenewBefore) {
    return {"certificates", certificate->not_after < now ? Health::kFailed : Health::kWarning,
            absl::StrCat("the certificate in ", where, " ends on ", date, " UTC"),
            "issue a new one and put it in place; running programs take it without a restart"};
  }
  return {"certificates", Health::kOk,
          absl::StrCat("the certificate in ", where, " is good until ", date, " UTC"), ""};
}

std::string HealthText(const std::vector<HealthCheck>& checks, bool color) {
  static const std::map<Health, const char*> colors = {{Health::kOk, "\033[32m"},
                                                       {Health::kSkipped, "\033[2m"},
                                                       {Health::kWarning, "\033[33m"},
                                                       {Health::kFailed, "\033[31m"}};
  std::string text;
  int warnings = 0;
  int failures = 0;
  for (const HealthCheck& check : checks) {
    warnings += check.health == Health::kWarning ? 1 : 0;
    failures += check.health == Health::kFailed ? 1 : 0;
    const std::string word = absl::StrFormat("%-8s", HealthWord(check.health));
    absl::StrAppend(&text, color ? absl::StrCat(colors.at(check.health), word, "\033[0m") : word,
                    absl::StrFormat("%-15s", check.name), Printable(check.message), "\n");
    if (!check.fix.empty())
      absl::StrAppend(&text, std::string(23, ' '), "-> ", Printable(check.fix), "\n");
  }
  if (failures == 0 && warnings == 0) return text + "\nAll is well.\n";
  return absl::StrCat(text, "\n", failures, failures == 1 ? " failure, " : " failures, ", warnings,
                      warnings == 1 ? " warning.\n" : " warnings.\n");
}

}  // namespace switchyard::coordinator
