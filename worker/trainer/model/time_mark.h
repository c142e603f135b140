// A point in what is enqueued on a device's current stream, or in the host's time on CPU: what
// times of a step are taken with. Making and recording one waits for nothing.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <chrono>
#include <memory>

namespace switchyard::trainer {

class TimeMark {
 public:
  // Recorded at once.
  explicit TimeMark(at::Device device);
  // The point is here from now on. Allocates nothing.
  void Record();
  // Seconds from `earlier` to this, once the device has passed both; waits for that.
  double SecondsSince(const TimeMark& earlier) const;

 private:
  at::Device device_;
  std::chrono::steady_clock::time_point host_;
  std::shared_ptr<c10::Event> event_;  // null on CPU
};

}  // namespace switchyard::trainer
