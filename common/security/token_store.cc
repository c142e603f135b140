#include "common/security/token_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/durable_file.h"
#include "common/file_lock.h"
#include "common/security/private_file.h"
#include "common/security/token.h"
#include "common/status_macros.h"

namespace switchyard::security {
namespace {

constexpr int64_t kMaxFileBytes = 16 << 20;
constexpr size_t kMaxNameSize = 128;
constexpr size_t kMaxGrants = 64;

std::string TimeText(absl::Time time) {
  return time == absl::InfiniteFuture()
             ? ""
             : absl::FormatTime(absl::RFC3339_full, time, absl::UTCTimeZone());
}

// Empty is never. False for a text that is no time.
bool ReadTime(const nlohmann::json& value, absl::Time& time) {
  const std::string text = value.get<std::string>();
  time = absl::InfiniteFuture();
  return text.empty() || absl::ParseTime(absl::RFC3339_full, text, &time, nullptr);
}

absl::Status CheckRequest(const NewTokenRequest& request, absl::Time now) {
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  if (request.name.empty() || request.name.size() > kMaxNameSize ||
      std::any_of(request.name.begin(), request.name.end(), is_control)) {
    return absl::InvalidArgumentError(
        absl::StrCat("display_name: is \"", absl::CEscape(request.name.substr(0, 80)),
                     "\"; give 1 to ", kMaxNameSize, " characters that say who or what it is for"));
  }
  if (request.grants.empty() || request.grants.size() > kMaxGrants) {
    return absl::InvalidArgumentError(absl::StrCat("grants: there are ", request.grants.size(),
                                                   "; give 1 to ", kMaxGrants,
                                                   ", each a role in a project or in all (\"*\")"));
  }
  for (const Grant& grant : request.grants) {
    if (grant.project.empty() || grant.project.size() > 63 || grant.role == Role::kNone) {
      return absl::InvalidArgumentError(
          absl::StrCat("grants: \"", absl::CEscape(grant.project.substr(0, 80)), "\" with role ",
                       RoleName(grant.role),
                       "; give a project or \"*\", and viewer, submitter, operator or admin"));
    }
  }
  if (request.expire_time <= now) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expire_time: is ", TimeText(request.expire_time), ", which has passed; give a later one"));
  }
  return absl::OkStatus();
}

bool SameFile(const struct stat& a, const struct stat& b) {
  return a.st_ino == b.st_ino && a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

absl::Status Unknown() {
  return absl::UnauthenticatedError(
      "the token is unknown; ask an administrator for one (switchyard token create)");
}

}  // namespace

absl::StatusOr<std::map<std::string, TokenRecord>> ParseTokenFile(absl::string_view text) {
  const absl::Status damaged = absl::DataLossError("is no token file");
  std::map<std::string, TokenRecord> tokens;
  try {
    const auto document = nlohmann::json::parse(text.begin(), text.end());
    if (document.at("version") != 1) return absl::DataLossError("has another version than 1");
    for (const auto& entry : document.at("tokens")) {
      TokenRecord record;
      record.id = entry.at("id").get<std::string>();
      record.name = entry.at("name").get<std::string>();
      record.secret_hash = entry.at("secret_sha256").get<std::string>();
      record.creator = entry.at("creator").get<std::string>();
      if (!ReadTime(entry.at("create_time"), record.create_time) ||
          !ReadTime(entry.at("expire_time"), record.expire_time) ||
          !ReadTime(entry.at("revoke_time"), record.revoke_time)) {
        return damaged;
      }
      for (const auto& grant : entry.at("grants")) {
        const auto role = RoleOfName(grant.at("role").get<std::string>());
        if (!role) return damaged;
        record.grants.push_back({grant.at("project").get<std::string>(), *role});
      }
      if (record.secret_hash.size() != 64) return damaged;
      const std::string id = record.id;
      if (!tokens.emplace(id, std::move(record)).second) return damaged;
    }
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(absl::StrCat("is no token file: ", error.what()));
  }
  return tokens;
}

absl::StatusOr<std::unique_ptr<TokenStore>> TokenStore::Open(const std::string& path) {
  std::unique_ptr<TokenStore> store(new TokenStore(path));
  absl::MutexLock lock(&store->mutex_);
  SWITCHYARD_RETURN_IF_ERROR(store->Refresh());
  return store;
}

absl::Status TokenStore::Refresh() {
  struct stat now {};
  if (::stat(path_.c_str(), &now) != 0) {
    if (errno != ENOENT) return FileError(errno, "look at", path_);
    tokens_.clear();
    seen_ = {};
    return absl::OkStatus();
  }
  if (SameFile(now, seen_)) return absl::OkStatus();
  SWITCHYARD_RETURN_IF_ERROR(CheckPrivate(path_));
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path_, kMaxFileBytes));
  auto tokens = ParseTokenFile(text);
  if (!tokens.ok()) {
    return absl::DataLossError(absl::StrCat(path_, " ", tokens.status().message(),
                                            "; bring back a good copy, or remove it and make new "
                                            "tokens with switchyard-coordinator token"));
  }
  tokens_ = *std::move(tokens);
  seen_ = now;
  return absl::OkStatus();
}

absl::Status TokenStore::Write() {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& [id, record] : tokens_) {
    nlohmann::ordered_json grants = nlohmann::ordered_json::array();
    for (const Grant& grant : record.grants)
      grants.push_back({{"project", grant.project}, {"role", RoleName(grant.role)}});
    list.push_back({{"id", id},
                    {"name", record.name},
                    {"secret_sha256", record.secret_hash},
                    {"grants", std::move(grants)},
                    {"creator", record.creator},
                    {"create_time", TimeText(record.create_time)},
                    {"expire_time", TimeText(record.expire_time)},
                    {"revoke_time", TimeText(record.revoke_time)}});
  }
  const nlohmann::ordered_json document{{"version", 1}, {"tokens", std::move(list)}};
  using Json = nlohmann::ordered_json;
  SWITCHYARD_RETURN_IF_ERROR(ReplaceWholeFile(
      path_, document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n", 0600));
  return ::stat(path_.c_str(), &seen_) == 0 ? absl::OkStatus() : FileError(errno, "look at", path_);
}

absl::StatusOr<Caller> TokenStore::Verify(absl::string_view text, absl::Time now) {
  const auto token = ParseToken(text);
  if (!token) {
    return absl::UnauthenticatedError(
        "what was sent is no token of this service (sy_...); give one with --token-file or "
        "SWITCHYARD_TOKEN_FILE");
  }
  absl::MutexLock lock(&mutex_);
  // A file that cannot be read now does not lock everybody out: what was read before holds.
  const absl::Status refreshed = Refresh();
  if (!refreshed.ok() && tokens_.empty()) return refreshed;
  const auto it = tokens_.find(token->id);
  const std::string hash = Sha256Hex(token->secret);
  if (it == tokens_.end() || !EqualSecrets(hash, it->second.secret_hash)) return Unknown();
  const TokenRecord& record = it->second;
  if (record.revoke_time <= now) {
    return absl::UnauthenticatedError(absl::StrCat("token ", record.id, " was revoked at ",
                                                   TimeText(record.revoke_time),
                                                   "; ask an administrator for a new one"));
  }
  if (record.expire_time <= now) {
    return absl::UnauthenticatedError(absl::StrCat("token ", record.id, " expired at ",
                                                   TimeText(record.expire_time),
                                                   "; ask an administrator for a new one"));
  }
  return Caller{record.id, record.name, record.grants};
}

absl::StatusOr<CreatedToken> TokenStore::Create(const NewTokenRequest& request, absl::Time now) {
  SWITCHYARD_RETURN_IF_ERROR(CheckRequest(request, now));
  absl::MutexLock lock(&mutex_);
  SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd file_lock, LockFile(path_ + ".lock", 0600));
  SWITCHYARD_RETURN_IF_ERROR(Refresh());
  if (tokens_.size() >= kMaxTokens) {
    std::erase_if(tokens_, [&](const auto& entry) {
      return std::min(entry.second.revoke_time, entry.second.expire_time) <= now;
    });
  }
  if (tokens_.size() >= kMaxTokens) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there are ", tokens_.size(), " live tokens; revoke some first"));
  }
  CreatedToken created;
  const TokenText token = NewToken();
  created.text = token.Text();
  created.record = {.id = token.id,
                    .name = request.name,
                    .secret_hash = Sha256Hex(token.secret),
                    .grants = request.grants,
                    .creator = request.creator,
                    .create_time = now,
                    .expire_time = request.expire_time};
  tokens_[token.id] = created.record;
  if (absl::Status written = Write(); !written.ok()) {
    tokens_.erase(token.id);
    return written;
  }
  return created;
}

absl::StatusOr<std::vector<TokenRecord>> TokenStore::List() {
  absl::MutexLock lock(&mutex_);
  SWITCHYARD_RETURN_IF_ERROR(Refresh());
  std::vector<TokenRecord> records;
  for (const auto& [id, record] : tokens_) records.push_back(record);
  std::sort(records.begin(), records.end(), [](const TokenRecord& a, const TokenRecord& b) {
    return std::tie(a.create_time, a.id) < std::tie(b.create_time, b.id);
  });
  return records;
}

absl::StatusOr<TokenRecord> TokenStore::Revoke(const std::string& id, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd file_lock, LockFile(path_ + ".lock", 0600));
  SWITCHYARD_RETURN_IF_ERROR(Refresh());
  const auto it = tokens_.find(id);
  if (it == tokens_.end()) {
    return absl::NotFoundError(
        absl::StrCat("token \"", absl::CEscape(id.substr(0, 80)),
                     "\" does not exist; `switchyard token list` shows those that do"));
  }
  if (it->second.revoke_time <= now) return it->second;
  it->second.revoke_time = now;
  // Also when the write fails: a revocation holds at once, and the caller hears that it is not
  // kept.
  SWITCHYARD_RETURN_IF_ERROR(Write());
  return it->second;
}

}  // namespace switchyard::security
