// Series of the coordinator itself: its writer thread, its store, its disk.
#pragma once

#include <string>

#include "common/telemetry/registry.h"

namespace switchyard::coordinator {

struct ServiceSeries {
  explicit ServiceSeries(telemetry::Registry& registry);

  // Free bytes of the file system of `state_dir`; before each scrape.
  void SetDisk(const std::string& state_dir) const;

  // When the certificates in `security_dir` end; before each scrape. What cannot be read is left
  // as it was.
  void SetCertificates(const std::string& security_dir) const;

  telemetry::Histogram writer_wait;  // from a request's arrival to its turn on the writer thread
  telemetry::Histogram store_write;  // transactions that changed something
  telemetry::Counter store_errors;
  telemetry::Gauge state_dir_free;
  telemetry::Gauge certificate_end;  // "authority", "own"
};

}  // namespace switchyard::coordinator
