#include "coordinator/report/service_series.h"

#include <sys/statvfs.h>

#include <utility>

#include "common/security/certificates.h"

namespace switchyard::coordinator {

ServiceSeries::ServiceSeries(telemetry::Registry& registry)
    : writer_wait(registry.AddHistogram("switchyard_writer_wait_seconds",
                                        "Time that a change waited for the writer thread.",
                                        telemetry::LatencyBuckets())),
      store_write(registry.AddHistogram("switchyard_store_write_seconds",
                                        "Time to make changes durable.",
                                        telemetry::LatencyBuckets())),
      store_errors(registry.AddCounter("switchyard_store_errors_total",
                                       "Changes that could not be made durable.")),
      state_dir_free(registry.AddGauge("switchyard_state_dir_free_bytes",
                                       "Free bytes where the coordinator keeps its store.")),
      certificate_end(registry.AddGauge("switchyard_certificate_end_timestamp_seconds",
                                        "When a certificate of the coordinator ends, Unix time.",
                                        {"certificate"})) {}

void ServiceSeries::SetDisk(const std::string& state_dir) const {
  struct statvfs disk {};
  if (::statvfs(state_dir.c_str(), &disk) == 0) {
    state_dir_free.Set(static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize));
  }
}

void ServiceSeries::SetCertificates(const std::string& security_dir) const {
  const auto files = security::CertificateFiles::In(security_dir);
  for (const auto& [name, file] :
       {std::pair<const char*, std::string>("authority", files.authority),
        {"own", files.certificate}}) {
    const auto certificate = security::ReadCertificate(file);
    if (certificate.ok()) {
      certificate_end.Set(static_cast<double>(absl::ToUnixSeconds(certificate->not_after)), {name});
    }
  }
}

}  // namespace switchyard::coordinator
