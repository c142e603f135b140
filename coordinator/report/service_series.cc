#include "coordinator/report/service_series.h"

#include <sys/statvfs.h>

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
                                       "Free bytes where the coordinator keeps its store.")) {}

void ServiceSeries::SetDisk(const std::string& state_dir) const {
  struct statvfs disk {};
  if (::statvfs(state_dir.c_str(), &disk) == 0) {
    state_dir_free.Set(static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize));
  }
}

}  // namespace switchyard::coordinator
