#include "worker/trainer/optim/sharded_optimizer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

namespace switchyard::trainer {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements a thread takes at least

// In eight interleaved parts, so that the compiler may keep them in one vector. The order is fixed.
template <typename T>
double SumOfSquares(const T* data, int64_t n) {
  double part[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) {
      const double value = static_cast<double>(static_cast<float>(data[i + j]));
      part[j] += value * value;
    }
  }
  for (; i < n; ++i)
    part[0] += static_cast<double>(static_cast<float>(data[i])) * static_cast<float>(data[i]);
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

// Calls body with a typed pointer to the gradient's data.
template <typename Body>
auto WithGradient(const at::Tensor& gradient, Body body) {
  TORCH_CHECK(gradient.scalar_type() == at::kFloat || gradient.scalar_type() == at::kBFloat16,
              "gradients are float32 or bfloat16, not ", gradient.scalar_type());
  return gradient.scalar_type() == at::kFloat ? body(gradient.const_data_ptr<float>())
                                              : body(gradient.const_data_ptr<at::BFloat16>());
}

double SumOfSquares(const at::Tensor& flat) {
  return WithGradient(flat, [&](const auto* data) { return SumOfSquares(data, flat.numel()); });
}

}  // namespace

ShardedOptimizer::ShardedOptimizer(ParameterRegistry& parameters, MeshCommunicators& communicators,
                                   const AdamWOptions& options)
    : parameters_(parameters), communicators_(communicators), options_(options) {
  const at::ScalarType type = parameters.values().scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16, "weights are float32 or bfloat16, not ",
              type);
  const std::vector<ParameterBlock>& blocks = parameters.blocks();
  segments_.resize(blocks.size());
  for (size_t b = 0; b < blocks.size(); ++b) {
    OptimizerShard shard;
    shard.block = static_cast<int>(b);
    const int64_t numel = blocks[b].shard_numel();
    shard.exp_avg = at::zeros({numel}, at::kFloat);
    shard.exp_avg_sq = at::zeros({numel}, at::kFloat);
    if (type == at::kBFloat16) shard.master_remainder = at::zeros({numel}, at::kShort);
    state_.shards.push_back(std::move(shard));
  }
  for (size_t p = 0; p < parameters.parameters().size(); ++p) {
    const Parameter& parameter = parameters.parameters()[p];
    const ParameterBlock& block = blocks[parameter.block];
    const int64_t shard_begin = parameters.shard_index(block) * block.shard_numel();
    const int64_t begin = std::max(parameter.offset, shard_begin);
    const int64_t end =
        std::min(parameter.offset + parameter.numel, shard_begin + block.shard_numel());
    if (begin < end) {
      segments_[parameter.block].push_back(
          {static_cast<int>(p), begin - shard_begin, end - begin, parameter.shape.size() >= 2});
    }
  }
}

Communicator& ShardedOptimizer::GroupOf(const ParameterBlock& block) {
  return block.kind == ParameterKind::kExpert ? *communicators_.edp : *communicators_.world;
}

at::Tensor ShardedOptimizer::OwnShard(int block, const at::Tensor& flat) const {
  const ParameterBlock& b = parameters_.blocks()[block];
  return flat.narrow(0, parameters_.shard_index(b) * b.shard_numel(), b.shard_numel());
}

double ShardedOptimizer::ReduceGradients(const BlockGradients& gradients) {
  double squares = 0;
  for (size_t b = 0; b < segments_.size(); ++b) {
    const int block = static_cast<int>(b);
    const at::Tensor gradient = gradients(block);
    const at::Tensor own = OwnShard(block, gradient);
    GroupOf(parameters_.blocks()[b]).ReduceScatter(gradient, own);
    for (const Segment& segment : segments_[b]) {
      squares += SumOfSquares(own.narrow(0, segment.shard_offset, segment.numel));
    }
  }
  return squares;
}

std::vector<std::string> ShardedOptimizer::NonFiniteParameters(const BlockGradients& gradients) {
  const std::vector<Parameter>& parameters = parameters_.parameters();
  at::Tensor found = at::zeros({static_cast<int64_t>(parameters.size())}, at::kLong);
  for (size_t b = 0; b < segments_.size(); ++b) {
    const at::Tensor own = OwnShard(static_cast<int>(b), gradients(static_cast<int>(b)));
    for (const Segment& segment : segments_[b]) {
      const double squares = SumOfSquares(own.narrow(0, segment.shard_offset, segment.numel));
      if (!std::isfinite(squares)) found.mutable_data_ptr<int64_t>()[segment.parameter] = 1;
    }
  }
  communicators_.world->AllReduce(found);
  std::vector<std::string> names;
  for (size_t p = 0; p < parameters.size(); ++p) {
    if (found.const_data_ptr<int64_t>()[p] > 0) names.push_back(parameters[p].name);
  }
  return names;
}

void ShardedOptimizer::Update(const BlockGradients& gradients, double learning_rate,
                              double gradient_scale) {
  ++state_.adam_step;
  for (size_t b = 0; b < segments_.size(); ++b) {
    const int block = static_cast<int>(b);
    const at::Tensor values = parameters_.BlockValues(block);
    const at::Tensor own = OwnShard(block, values);
    const at::Tensor gradient = OwnShard(block, gradients(block));
    OptimizerShard& shard = state_.shards[b];
    float* exp_avg = shard.exp_avg.mutable_data_ptr<float>();
    float* exp_avg_sq = shard.exp_avg_sq.mutable_data_ptr<float>();
    for (const Segment& segment : segments_[b]) {
      const AdamWStep step(options_, learning_rate, state_.adam_step, gradient_scale,
                           segment.decays);
      WithGradient(gradient, [&](const auto* g) {
        at::parallel_for(0, segment.numel, kGrain, [&](int64_t begin, int64_t end) {
          const int64_t at = segment.shard_offset + begin;
          const int64_t n = end - begin;
          if (own.scalar_type() == at::kFloat) {
            UpdateFloat32(step, n, g + at, own.mutable_data_ptr<float>() + at, exp_avg + at,
                          exp_avg_sq + at);
          } else {
            UpdateSplit(step, n, g + at, own.mutable_data_ptr<at::BFloat16>() + at,
                        shard.master_remainder.mutable_data_ptr<int16_t>() + at, exp_avg + at,
                        exp_avg_sq + at);
          }
        });
      });
    }
    GroupOf(parameters_.blocks()[b]).AllGather(own, values);
  }
}

double ClipScale(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace switchyard::trainer
