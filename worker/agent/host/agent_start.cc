// AgentHost::Create: everything that happens before slots are offered.
#include <algorithm>
#include <filesystem>
#include <random>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/file_lock.h"
#include "common/log.h"
#include "common/rpc/credentials.h"
#include "common/security/certificates.h"
#include "common/security/private_file.h"
#include "common/status_macros.h"
#include "worker/agent/host/agent_host.h"
#include "worker/agent/inventory/inventory.h"
#include "worker/agent/process/leftovers.h"

namespace switchyard::agent {
namespace {

namespace fs = std::filesystem;
constexpr std::chrono::seconds kLeftoverPatience{30};

// Two agents in one directory would remove each other's processes.
absl::StatusOr<UniqueFd> LockWorkDir(const std::string& work_dir) {
  // Attempts too, because the directory may be there already.
  for (const std::string& path : {work_dir, absl::StrCat(work_dir, "/attempts")}) {
    if (const absl::Status made = security::MakePrivateDirectory(path); !made.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--work-dir ", work_dir, " cannot be created: ", made.message()));
    }
  }
  security::WarnIfOpenToOthers("work_dir.open_to_others", work_dir, "results and prepared data");
  absl::StatusOr<UniqueFd> lock = TryLockFile(absl::StrCat(work_dir, "/lock"), 0640);
  if (absl::IsFailedPrecondition(lock.status())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "--work-dir ", work_dir, " is in use by another agent; give each agent its own"));
  }
  if (!lock.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--work-dir ", work_dir, " cannot be used: ", lock.status().message()));
  }
  return lock;
}

// Better said here than by a coordinator that closes every session.
absl::Status CheckIdentity(const AgentOptions& options) {
  const std::string path = security::CertificateFiles::In(options.tls_dir).certificate;
  SWITCHYARD_ASSIGN_OR_RETURN(const auto info, security::ReadCertificate(path));
  for (const std::string& uri : info.uris) {
    if (uri == security::AgentUri(options.node)) return absl::OkStatus();
    // Agents that a cluster starts share a certificate: it proves that they are ours, and the
    // coordinator knows which names the nodes of their attempt have.
    if (!options.for_attempt.empty() && security::NodeOfAgentUri(uri)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      path, " is not of node \"", options.node, "\" but of \"", info.subject,
      "\"; give the --node that it was issued for, or issue one with switchyard-coordinator "
      "issue-agent --node ",
      options.node));
}

std::string NewIncarnation() {
  std::random_device random;
  return absl::StrFormat("%08x%08x", random(), random());
}

}  // namespace

absl::StatusOr<std::unique_ptr<AgentHost>> AgentHost::Create(const AgentOptions& options) {
  SWITCHYARD_RETURN_IF_ERROR(Validate(options));
  SWITCHYARD_ASSIGN_OR_RETURN(
      security::PathPolicy paths,
      security::PathPolicy::Create(options.model_roots, options.data_roots, options.output_roots));
  SessionDriver::Credentials credentials = [plain = grpc::InsecureChannelCredentials()] {
    return plain;
  };
  if (!options.tls_dir.empty()) {
    SWITCHYARD_RETURN_IF_ERROR(CheckIdentity(options));
    SWITCHYARD_ASSIGN_OR_RETURN(
        std::shared_ptr<rpc::TlsAgent> tls,
        rpc::TlsAgent::Open(security::CertificateFiles::In(options.tls_dir)));
    credentials = [tls] { return tls->Current(); };
  }
  SWITCHYARD_ASSIGN_OR_RETURN(UniqueFd lock, LockWorkDir(options.work_dir));
  SWITCHYARD_ASSIGN_OR_RETURN(const auto lost,
                              RemoveLeftovers(options.work_dir, kLeftoverPatience));
  SWITCHYARD_ASSIGN_OR_RETURN(Journal journal,
                              Journal::Open(absl::StrCat(options.work_dir, "/journal")));
  std::set<AttemptKey> journaled;
  for (const auto& result : journal.Load()) journaled.insert({result.job_uid(), result.epoch()});
  for (const auto& result : lost) {
    const AttemptKey key{result.job_uid(), result.epoch()};
    if (!journaled.contains(key)) SWITCHYARD_RETURN_IF_ERROR(journal.Write(result));
    for (const Phase phase : {Phase::kPreparation, Phase::kRanks})
      RemovePidFiles(options.work_dir, {key, phase});
    log::Warning("attempt.lost",
                 {{"job_uid", key.job_uid}, {"epoch", key.epoch}, {"ranks", result.ranks_size()}});
  }

  AgentCore::Options core;
  core.node = options.node;
  core.incarnation = NewIncarnation();
  core.boot_id = BootId();
  core.version = SWITCHYARD_VERSION;
  core.graces = options.graces;
  core.allocation = options.for_attempt;
  SWITCHYARD_ASSIGN_OR_RETURN(core.inventory,
                              TakeInventory({options.cpu_slots, options.fabric_address,
                                             options.fabric_interface, options.coordinator}));
  auto metrics = std::make_unique<AgentMetrics>();
  std::optional<security::CertificateFiles> metrics_tls;
  if (!rpc::IsLoopback(options.metrics) && !options.tls_dir.empty())
    metrics_tls = security::CertificateFiles::In(options.tls_dir);
  SWITCHYARD_RETURN_IF_ERROR(metrics->Serve(options.metrics, metrics_tls));
  log::Info("agent.started", {{"node", options.node},
                              {"coordinator", options.coordinator},
                              {"slots", core.inventory.slots_size()},
                              {"device", core.inventory.slots(0).device()},
                              {"slot_memory_bytes", core.inventory.slots(0).memory_bytes()},
                              {"fabric_address", core.inventory.fabric_address()},
                              {"runtime", options.runtime},
                              {"metrics", metrics->address()},
                              {"results", journal.Load().size()}});
  AgentCore::Recovered recovered{journal.Load(), journal.StoreId()};
  const auto results = recovered.results;
  std::unique_ptr<AgentHost> host(new AgentHost(
      options, {std::move(lock), std::move(journal), std::move(core), std::move(recovered),
                std::move(metrics), std::move(paths), std::move(credentials)}));
  host->AdoptEarlierRun(results);
  return host;
}

void AgentHost::AdoptEarlierRun(const std::vector<v1::AttemptStatus>& results) {
  std::set<AttemptKey> unacknowledged;
  std::error_code error;
  for (const auto& result : results) {
    const AttemptKey key{result.job_uid(), result.epoch()};
    unacknowledged.insert(key);
    std::vector<int> ranks = {kPreparationRank};
    for (const auto& rank : result.ranks()) ranks.push_back(rank.rank());
    for (const int rank : ranks) {
      const std::string path =
          absl::StrCat(AttemptDir(options_.work_dir, key), "/", LogSpool::FileName(rank));
      // Of a rotated log the offsets are not known any more; it stays on this node.
      if (!fs::exists(path, error) || fs::exists(path + ".1", error)) continue;
      if (const auto opened = spool_.Open({key, rank}); !opened.ok()) {
        log::Warning("log.unreadable", {{"path", path}, {"error", std::string(opened.message())}});
      }
    }
  }
  std::vector<std::pair<fs::file_time_type, AttemptKey>> kept;
  for (const auto& job :
       fs::directory_iterator(absl::StrCat(options_.work_dir, "/attempts"), error)) {
    for (const auto& epoch : fs::directory_iterator(job.path(), error)) {
      AttemptKey key{job.path().filename().string(), 0};
      if (!absl::SimpleAtoi(epoch.path().filename().string(), &key.epoch) ||
          unacknowledged.contains(key))
        continue;
      kept.emplace_back(epoch.last_write_time(error), key);
    }
  }
  std::sort(kept.begin(), kept.end());
  for (auto& [time, key] : kept) kept_.push_back(std::move(key));
}

}  // namespace switchyard::agent
