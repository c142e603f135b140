// Bearer tokens of a coordinator: a small JSON file with the hash of each secret, never the secret.
//
// Thread-safe. Another process may change the file (switchyard-coordinator token): every change is
// made under a lock on FILE.lock, and a reader notices a new file by itself.
#pragma once

#include <sys/stat.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/security/roles.h"

namespace switchyard::security {

struct TokenRecord {
  std::string id;
  std::string name;         // who or what it is for
  std::string secret_hash;  // SHA-256, hexadecimal
  std::vector<Grant> grants;
  std::string creator;  // id of the token that made it, "init" for the first
  absl::Time create_time;
  absl::Time expire_time;                           // InfiniteFuture for never
  absl::Time revoke_time = absl::InfiniteFuture();  // InfiniteFuture while it is not revoked
};

struct NewTokenRequest {
  std::string name;
  std::vector<Grant> grants;
  absl::Time expire_time;
  std::string creator;
};

struct CreatedToken {
  TokenRecord record;
  std::string text;  // shown once, stored nowhere
};

class TokenStore {
 public:
  // Of at most so many tokens; revoked and expired ones are dropped when there are more.
  static constexpr size_t kMaxTokens = 10000;

  // Reads `path`; a missing file is an empty store. PermissionDenied when others may read it,
  // DataLoss when it is damaged.
  static absl::StatusOr<std::unique_ptr<TokenStore>> Open(const std::string& path);

  // The caller that `text` stands for. Unauthenticated when it is no token, unknown, expired or
  // revoked; the message says which of the last two only to who has the secret.
  absl::StatusOr<Caller> Verify(absl::string_view text, absl::Time now);

  // InvalidArgument for a name, project or time that is not right, each with the fix.
  absl::StatusOr<CreatedToken> Create(const NewTokenRequest& request, absl::Time now);
  // Oldest first, revoked and expired ones too.
  absl::StatusOr<std::vector<TokenRecord>> List();
  // From the next call on. NotFound for an unknown id; idempotent.
  absl::StatusOr<TokenRecord> Revoke(const std::string& id, absl::Time now);

 private:
  explicit TokenStore(std::string path) : path_(std::move(path)) {}

  absl::Status Refresh() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  absl::Mutex mutex_;
  std::map<std::string, TokenRecord> tokens_ ABSL_GUARDED_BY(mutex_);  // by id
  struct stat seen_ ABSL_GUARDED_BY(mutex_) {};                        // of the file that was read
};

// What a token file says; any bytes may come in. DataLoss when it is no token file.
absl::StatusOr<std::map<std::string, TokenRecord>> ParseTokenFile(absl::string_view text);

}  // namespace switchyard::security
