// A tensor on its way from the device to the host, and times of the device, without anybody waiting
// for them yet.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <chrono>
#include <memory>

namespace switchyard::trainer {

class HostCopy {
 public:
  HostCopy() = default;
  // The values once they are there.
  at::Tensor Wait() const;

 private:
  friend HostCopy ReadBack(const at::Tensor& tensor);
  at::Tensor host_;
  std::shared_ptr<c10::Event> copied_;  // null on CPU
};

// A point in what is enqueued on a device's current stream, or in the host's time on CPU.
class TimeMark {
 public:
  explicit TimeMark(at::Device device);
  // Seconds from `earlier` to this, once the device has passed both; waits for that.
  double SecondsSince(const TimeMark& earlier) const;

 private:
  std::chrono::steady_clock::time_point host_;
  std::shared_ptr<c10::Event> event_;  // null on CPU
};

// Enqueues the copy on the current stream; `tensor` may change afterwards. On CPU a plain copy.
HostCopy ReadBack(const at::Tensor& tensor);

}  // namespace switchyard::trainer
