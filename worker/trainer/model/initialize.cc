#include "worker/trainer/model/initialize.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/randn.h>

#include "absl/strings/match.h"

namespace switchyard::trainer {
namespace {

// A stream of its own for each (seed, tensor, expert): splitmix64 over the three.
uint64_t StreamSeed(uint64_t seed, uint64_t tensor, uint64_t expert) {
  uint64_t state = seed;
  for (uint64_t part : {tensor, expert}) {
    state += 0x9e3779b97f4a7c15ull + part;
    state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ull;
    state = (state ^ (state >> 27)) * 0x94d049bb133111ebull;
    state ^= state >> 31;
  }
  return state;
}

void FillNormal(at::Tensor value, double deviation, uint64_t stream) {
  if (!value.is_cpu()) {
    at::Generator generator = at::globalContext().defaultGenerator(value.device());
    generator.set_current_seed(stream);
    value.normal_(0, deviation, generator);
    return;
  }
  at::Generator generator = at::detail::createCPUGenerator(stream);
  const auto host = at::TensorOptions().dtype(at::kFloat);
  value.copy_(at::randn(value.sizes(), generator, host).mul_(deviation));
}

}  // namespace

void InitializeParameters(const ModelShape& shape, ParameterRegistry& registry, int64_t seed) {
  const int first_expert = registry.mesh().first_expert(registry.rank());
  for (size_t i = 0; i < registry.parameters().size(); ++i) {
    const Parameter& p = registry.parameters()[i];
    at::Tensor value = registry.Value(static_cast<int>(i));
    if (p.shape.size() == 1) {
      value.fill_(absl::EndsWith(p.name, ".bias") ? 0 : 1);
    } else if (p.kind == ParameterKind::kReplicated) {
      FillNormal(value, shape.initializer_range, StreamSeed(seed, i, 0));
    } else {
      for (int64_t l = 0; l < p.shape[0]; ++l) {
        FillNormal(value.select(0, l), shape.initializer_range,
                   StreamSeed(seed, i, first_expert + l));
      }
    }
  }
}

}  // namespace switchyard::trainer
