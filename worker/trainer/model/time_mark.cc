#include "worker/trainer/model/time_mark.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace switchyard::trainer {

TimeMark::TimeMark(at::Device device) : device_(device) {
  if (!device.is_cpu())
    event_ = std::make_shared<c10::Event>(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  Record();
}

void TimeMark::Record() {
  if (event_ == nullptr) {
    host_ = std::chrono::steady_clock::now();
    return;
  }
  event_->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

double TimeMark::SecondsSince(const TimeMark& earlier) const {
  if (event_ == nullptr) return std::chrono::duration<double>(host_ - earlier.host_).count();
  event_->synchronize();
  return 1e-3 * earlier.event_->elapsedTime(*event_);
}

}  // namespace switchyard::trainer
