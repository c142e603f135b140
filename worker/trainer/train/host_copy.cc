#include "worker/trainer/train/host_copy.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace switchyard::trainer {

at::Tensor HostCopy::Wait() const {
  if (copied_ != nullptr) copied_->synchronize();
  return host_;
}

HostCopy ReadBack(const at::Tensor& tensor) {
  HostCopy copy;
  if (tensor.is_cpu()) {
    copy.host_ = tensor.clone();
    return copy;
  }
  const c10::impl::VirtualGuardImpl device(tensor.device().type());
  copy.host_ = at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(true));
  copy.host_.copy_(tensor, /*non_blocking=*/true);
  copy.copied_ = std::make_shared<c10::Event>(tensor.device().type());
  copy.copied_->record(device.getStream(tensor.device()));
  return copy;
}

}  // namespace switchyard::trainer
