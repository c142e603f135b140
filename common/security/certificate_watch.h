// Certificates whose files change while a program runs: always a set that fits together.
//
// Files are replaced one after the other, and sometimes by the wrong ones. Until what is there
// passes CheckCertificateFiles, the set before it stays, and the log says once why
// (certificate.not_taken). Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/security/certificates.h"

namespace switchyard::security {

// What the files held, PEM.
struct CertificateBytes {
  std::string authority;
  std::string certificate;
  std::string key;
};

class CertificateWatch {
 public:
  // Makes of them what they are wanted for, before they are taken; what it refuses is not taken.
  using Use = std::function<absl::Status(const CertificateBytes&)>;

  // FailedPrecondition when the files cannot be used.
  static absl::StatusOr<std::unique_ptr<CertificateWatch>> Open(const CertificateFiles& files,
                                                                absl::Time now = absl::Now(),
                                                                Use use = nullptr);

  // Looks at the files, once a second at most. Another object when, and only when, they changed and
  // can be used.
  std::shared_ptr<const CertificateBytes> Current(absl::Time now = absl::Now());

 private:
  CertificateWatch(CertificateFiles files, Use use)
      : files_(std::move(files)), use_(std::move(use)) {}
  absl::Status Take(const std::string& stamp, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CertificateFiles files_;
  const Use use_;  // may be empty
  absl::Mutex mutex_;
  std::shared_ptr<const CertificateBytes> taken_ ABSL_GUARDED_BY(mutex_);
  std::string stamp_ ABSL_GUARDED_BY(mutex_);      // of what was taken
  std::string complaint_ ABSL_GUARDED_BY(mutex_);  // about what was not, as it was logged
  absl::Time looked_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace switchyard::security
