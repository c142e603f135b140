#include "common/security/revoked_nodes.h"

#include <cerrno>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/durable_file.h"
#include "common/security/issue.h"
#include "common/security/private_file.h"
#include "common/status_macros.h"

namespace switchyard::security {
namespace {

constexpr int64_t kMaxFileBytes = 4 << 20;

// Empty when there is no file.
absl::StatusOr<std::map<std::string, absl::Time>> Read(const std::string& path) {
  std::map<std::string, absl::Time> revoked;
  auto text = ReadSmallFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return revoked;
  if (!text.ok()) return text.status();
  const auto document = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const absl::Status damaged = absl::DataLossError(
      absl::StrCat(path, " is damaged, and no agent is let in until it is mended or removed"));
  if (!document.is_object()) return damaged;
  for (const auto& [node, time] : document.items()) {
    if (!time.is_string() ||
        !absl::ParseTime(absl::RFC3339_full, time.get<std::string>(), &revoked[node], nullptr)) {
      return damaged;
    }
  }
  return revoked;
}

}  // namespace

absl::Status RevokedNodes::Check(const std::string& node, absl::Time not_before) {
  absl::MutexLock lock(&mutex_);
  struct stat now {};
  if (::stat(path_.c_str(), &now) != 0 && errno != ENOENT)
    return FileError(errno, "look at", path_);
  if (now.st_ino != seen_.st_ino || now.st_size != seen_.st_size ||
      now.st_mtim.tv_sec != seen_.st_mtim.tv_sec || now.st_mtim.tv_nsec != seen_.st_mtim.tv_nsec) {
    SWITCHYARD_ASSIGN_OR_RETURN(revoked_, Read(path_));
    seen_ = now;
  }
  const auto it = revoked_.find(node);
  if (it == revoked_.end() || not_before + kBackdate > it->second) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("the certificate of node \"", node, "\" was revoked at ",
                   absl::FormatTime(it->second, absl::UTCTimeZone()),
                   "; issue a new one with switchyard-coordinator issue-agent --node ", node));
}

absl::Status RevokedNodes::Revoke(const std::string& path, const std::string& node,
                                  absl::Time now) {
  SWITCHYARD_ASSIGN_OR_RETURN(auto revoked, Read(path));
  revoked[node] = now;
  nlohmann::ordered_json document = nlohmann::ordered_json::object();
  for (const auto& [name, time] : revoked)
    document[name] = absl::FormatTime(absl::RFC3339_full, time, absl::UTCTimeZone());
  SWITCHYARD_RETURN_IF_ERROR(ReplaceWholeFile(path, document.dump(2) + "\n", 0600));
  // Certificates tell their time in whole seconds.
  const absl::Time next = absl::FromUnixSeconds(absl::ToUnixSeconds(now) + 1);
  absl::SleepFor(next - absl::Now());
  return absl::OkStatus();
}

}  // namespace switchyard::security
