// Where the gradient of every parameter lies.
//
// Without accumulation: the gradients of a decoder layer lie in the slot after its own, those of
// the outer parameters in a buffer, in the parameter dtype. With accumulation: all in float32, in
// the registry's layout. Knows nothing of how gradients are computed or reduced.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "worker/trainer/model/arena.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/ops/weight_gradient.h"

namespace switchyard::trainer {

class GradientStore {
 public:
  // `slots` has one arena more than there are layers, and must outlive the store with its storage.
  // With `accumulate`, `scratch` (activations' dtype) holds the largest matrix; it may be undefined
  // for float32.
  GradientStore(const ParameterRegistry& registry, std::vector<Arena>& slots, at::ScalarType dtype,
                at::Device device, bool accumulate, at::Tensor scratch);

  // Destination for the gradient of parameter `index`, in its shape.
  ops::WeightGradient Destination(int index) const;
  // Destination of `count` matrices of equal width that are neighbours, as one matrix; of vectors,
  // as one vector.
  ops::WeightGradient Destination(int index, int count) const;
  // Contiguous [numel] of one block.
  at::Tensor Block(int block) const { return blocks_.at(block); }
  // Sets the elements between the last parameter and the end of the layer's blocks to 0:
  // activations may have lain there.
  void ZeroPadding(int layer);
  void ZeroAll();
  bool accumulates() const { return accumulate_; }

 private:
  const ParameterRegistry& registry_;
  bool accumulate_;
  at::Tensor scratch_;
  std::vector<at::Tensor> blocks_;
};

// View of the values of `count` neighbouring matrices of equal width as one matrix; of vectors, as
// one vector.
at::Tensor FusedValue(const ParameterRegistry& registry, int index, int count);

}  // namespace switchyard::trainer
