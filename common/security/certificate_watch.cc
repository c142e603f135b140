#include "common/security/certificate_watch.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::security {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(1);
constexpr int64_t kMaxFileBytes = 1 << 20;

// Another text when one of the files was replaced or written.
std::string StampOf(const CertificateFiles& files) {
  std::string stamp;
  for (const std::string& path : {files.authority, files.certificate, files.key}) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) continue;
    absl::StrAppend(&stamp, info.st_ino, " ", info.st_size, " ", info.st_mtim.tv_sec, " ",
                    info.st_mtim.tv_nsec, "\n");
  }
  return stamp;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CertificateWatch>> CertificateWatch::Open(
    const CertificateFiles& files, absl::Time now, Use use) {
  std::unique_ptr<CertificateWatch> watch(new CertificateWatch(files, std::move(use)));
  absl::MutexLock lock(&watch->mutex_);
  watch->looked_ = now;
  if (const absl::Status status = watch->Take(StampOf(files), now); !status.ok())
    return absl::FailedPreconditionError(status.message());
  return watch;
}

absl::Status CertificateWatch::Take(const std::string& stamp, absl::Time now) {
  auto bytes = std::make_shared<CertificateBytes>();
  SWITCHYARD_ASSIGN_OR_RETURN(bytes->authority, ReadSmallFile(files_.authority, kMaxFileBytes));
  SWITCHYARD_ASSIGN_OR_RETURN(bytes->certificate, ReadSmallFile(files_.certificate, kMaxFileBytes));
  SWITCHYARD_ASSIGN_OR_RETURN(bytes->key, ReadSmallFile(files_.key, kMaxFileBytes));
  SWITCHYARD_RETURN_IF_ERROR(CheckCertificateFiles(files_, now).status());
  // So that what was checked is what was read.
  if (StampOf(files_) != stamp) {
    return absl::UnavailableError(
        absl::StrCat(files_.certificate, " and its key change this moment; start again"));
  }
  if (use_) SWITCHYARD_RETURN_IF_ERROR(use_(*bytes));
  taken_ = std::move(bytes);
  stamp_ = stamp;
  complaint_.clear();
  return absl::OkStatus();
}

std::shared_ptr<const CertificateBytes> CertificateWatch::Current(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (now - looked_ < kInterval) return taken_;
  looked_ = now;
  const std::string stamp = StampOf(files_);
  if (stamp == stamp_) {
    complaint_.clear();
    return taken_;
  }
  const absl::Status status = Take(stamp, now);
  if (!status.ok() && status.message() != complaint_) {
    complaint_ = std::string(status.message());
    log::Warning("certificate.not_taken",
                 {{"error", complaint_}, {"what", "the one before it is used on"}});
  }
  return taken_;
}

}  // namespace switchyard::security
