// A tensor on its way from the device to the host, without anybody waiting for it yet.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

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

// Enqueues the copy on the current stream; `tensor` may change afterwards. On CPU a plain copy.
HostCopy ReadBack(const at::Tensor& tensor);

}  // namespace switchyard::trainer
