#include "worker/trainer/model/arena.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

namespace switchyard::trainer {
namespace {

int64_t Aligned(int64_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

}  // namespace

Arena::Arena(std::string name, int64_t bytes, at::Device device)
    : name_(std::move(name)), bytes_(Aligned(bytes)) {
  storage_ = at::empty({bytes_}, at::TensorOptions().dtype(at::kByte).device(device));
}

at::Tensor Arena::Take(at::IntArrayRef sizes, at::ScalarType dtype) {
  int64_t numel = 1;
  for (int64_t size : sizes) numel *= size;
  const int64_t bytes = numel * static_cast<int64_t>(c10::elementSize(dtype));
  TORCH_CHECK(used_ + Aligned(bytes) <= bytes_, "arena ", name_, " is full: ", used_, " of ",
              bytes_, " bytes used, ", bytes, " wanted");
  at::Tensor out = storage_.narrow(0, used_, bytes).view(dtype).view(sizes);
  used_ += Aligned(bytes);
  high_water_ = std::max(high_water_, used_);
  return out;
}

}  // namespace switchyard::trainer
