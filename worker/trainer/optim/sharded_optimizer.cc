#include "worker/trainer/optim/sharded_optimizer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>

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
                                   const ShardedOptimizerOptions& options)
    : parameters_(parameters),
      communicators_(communicators),
      options_(options),
      on_cpu_(parameters.values().is_cpu()) {
  const at::ScalarType type = parameters.values().scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16, "weights are float32 or bfloat16, not ",
              type);
  const bool compact = options.profile == OptimizerProfile::kCompact;
  TORCH_CHECK(!compact || !on_cpu_, "the compact optimizer profile needs a GPU");
  TORCH_CHECK(type == at::kBFloat16 || on_cpu_, "on a GPU weights are bfloat16");
  const auto on_device = parameters.values().options();
  const auto moments = on_device.dtype(compact ? at::kBFloat16 : at::kFloat);
  const std::vector<ParameterBlock>& blocks = parameters.blocks();
  segments_.resize(blocks.size());
  for (size_t b = 0; b < blocks.size(); ++b) {
    OptimizerShard shard;
    shard.block = static_cast<int>(b);
    const int64_t numel = blocks[b].shard_numel();
    shard.exp_avg = at::zeros({numel}, moments);
    shard.exp_avg_sq = at::zeros({numel}, moments);
    if (type == at::kBFloat16 && !compact) {
      shard.master_remainder = at::zeros({numel}, on_device.dtype(at::kShort));
    }
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
  squares_ = at::zeros({1}, on_device.dtype(at::kDouble));
  reduced_.resize(blocks.size(), false);
  if (on_cpu_) return;
  for (at::Tensor& found : non_finite_) {
    found = at::zeros({static_cast<int64_t>(parameters.parameters().size())},
                      on_device.dtype(at::kInt));
  }
  for (size_t b = 0; b < blocks.size(); ++b) {
    const std::vector<ops::UpdateSegment> segments = DeviceSegments(static_cast<int>(b));
    device_segments_.push_back(segments.empty() ? at::Tensor()
                                                : ops::Device().MakeSegments(segments));
  }
}

std::vector<ops::UpdateSegment> ShardedOptimizer::DeviceSegments(int block) const {
  const ParameterBlock& b = parameters_.blocks()[block];
  const int64_t shard_begin = parameters_.shard_index(b) * b.shard_numel();
  const int first_expert = parameters_.mesh().first_expert(parameters_.rank());
  std::vector<ops::UpdateSegment> runs;
  for (const Segment& segment : segments_[block]) {
    const Parameter& p = parameters_.parameters()[segment.parameter];
    // Stacked experts are a checkpoint tensor each.
    const bool stacked = p.kind == ParameterKind::kExpert;
    const int64_t tensor = stacked ? p.numel / p.shape[0] : p.numel;
    int64_t at = shard_begin + segment.shard_offset - p.offset;  // in the parameter
    const int64_t end = at + segment.numel;
    while (at < end) {
      const int64_t index = at / tensor;
      const auto id = static_cast<uint32_t>(segment.parameter) << 16 |
                      static_cast<uint32_t>(stacked ? first_expert + index : 0);
      const double decay = segment.decays ? options_.adamw.weight_decay : 0;
      runs.push_back(
          {p.offset + at - shard_begin, at - index * tensor, id, static_cast<float>(decay)});
      at = std::min(end, (index + 1) * tensor);
    }
  }
  return runs;
}

const OptimizerState& ShardedOptimizer::CurrentState() {
  if (device_scalars_.defined()) state_.adam_step = ops::Device().ReadUpdates(device_scalars_);
  return state_;
}

Communicator& ShardedOptimizer::GroupOf(const ParameterBlock& block) {
  return block.kind == ParameterKind::kExpert ? *communicators_.edp : *communicators_.world;
}

at::Tensor ShardedOptimizer::OwnShard(int block, const at::Tensor& flat) const {
  const ParameterBlock& b = parameters_.blocks()[block];
  return flat.narrow(0, parameters_.shard_index(b) * b.shard_numel(), b.shard_numel());
}

FinalGradients ShardedOptimizer::ReduceWhenFinal(const BlockGradients& gradients) {
  FinalGradients final_gradients;
  if (!on_cpu_) {
    final_gradients.of_layer = [this, &gradients](int layer) { ReduceLayer(layer, gradients); };
  }
  final_gradients.of_embedding = [this, &gradients](const ops::EmbeddingRows& rows,
                                                    Arena& workspace) {
    ReduceEmbedding(rows, gradients, workspace);
  };
  return final_gradients;
}

void ShardedOptimizer::ReduceLayer(int layer, const BlockGradients& gradients) {
  RECORD_USER_SCOPE("reduce beside backward");
  ops::Device().MarkBeside();
  ops::Device().Beside([&] {
    for (size_t b = 0; b < segments_.size(); ++b) {
      if (parameters_.blocks()[b].layer != layer) continue;
      ReduceBlock(static_cast<int>(b), gradients(static_cast<int>(b)));
      reduced_[b] = true;
    }
  });
}

void ShardedOptimizer::ReduceEmbedding(const ops::EmbeddingRows& rows,
                                       const BlockGradients& gradients, Arena& workspace) {
  RECORD_USER_SCOPE("reduce embedding");
  const Parameter& table = parameters_.parameters()[parameters_.Find("model.embed_tokens.weight")];
  const ParameterBlock& block = parameters_.blocks()[table.block];
  Communicator& group = GroupOf(block);
  const at::Tensor gradient = gradients(table.block), own = OwnShard(table.block, gradient);
  TORCH_CHECK(table.offset == 0, "the embedding must begin its block");
  const int64_t first = std::min(parameters_.shard_index(block) * block.shard_numel(), table.numel);
  const int64_t end = std::min(first + block.shard_numel(), table.numel);
  ArenaScope scope(workspace);
  const int64_t tokens = group.size() * rows.id_T.numel();
  const ops::EmbeddingRows all = {
      workspace.Take({tokens, rows.grad_TD.size(1)}, rows.grad_TD.scalar_type()),
      workspace.Take({tokens}, at::kLong), rows.skipped_id};
  if (!on_cpu_) ops::Device().JoinBeside();  // one stream at a time for the group
  group.AllGather(rows.id_T, all.id_T);
  const at::Tensor whole = gradient.narrow(0, 0, table.numel).view(table.shape);
  ops::SumEmbeddingRows(all, {whole, first, end, /*add=*/false}, workspace, [&] {
    group.AllGather(rows.grad_TD, all.grad_TD);
    own.zero_();
  });
  AddSquares(table.block, own);
  reduced_[table.block] = true;
}

void ShardedOptimizer::ReduceBlock(int block, const at::Tensor& gradient) {
  const at::Tensor own = OwnShard(block, gradient);
  GroupOf(parameters_.blocks()[block]).ReduceScatter(gradient, own);
  AddSquares(block, own);
}

void ShardedOptimizer::AddSquares(int block, const at::Tensor& own) {
  if (!on_cpu_) {
    ops::Device().SumOfSquares(own, squares_);  // padding is 0
    return;
  }
  double sum = 0;
  for (const Segment& segment : segments_[block]) {
    sum += SumOfSquares(own.narrow(0, segment.shard_offset, segment.numel));
  }
  squares_.add_(sum);
}

at::Tensor ShardedOptimizer::ReduceGradients(const BlockGradients& gradients) {
  RECORD_USER_SCOPE("reduce_gradients");
  if (!on_cpu_) ops::Device().JoinBeside();
  for (size_t b = 0; b < segments_.size(); ++b) {
    const int block = static_cast<int>(b);
    if (!reduced_[b]) ReduceBlock(block, gradients(block));
    reduced_[b] = false;
  }
  at::Tensor squares = squares_.clone();
  squares_.zero_();
  return squares;
}

std::vector<std::string> ShardedOptimizer::NonFiniteParameters(int64_t update,
                                                               const BlockGradients& gradients) {
  const std::vector<Parameter>& parameters = parameters_.parameters();
  at::Tensor found = at::zeros({static_cast<int64_t>(parameters.size())}, at::kLong);
  if (on_cpu_) {
    for (size_t b = 0; b < segments_.size(); ++b) {
      const at::Tensor own = OwnShard(static_cast<int>(b), gradients(static_cast<int>(b)));
      for (const Segment& segment : segments_[b]) {
        const double squares = SumOfSquares(own.narrow(0, segment.shard_offset, segment.numel));
        if (!std::isfinite(squares)) found.mutable_data_ptr<int64_t>()[segment.parameter] = 1;
      }
    }
  } else {
    at::Tensor& marks = non_finite_[static_cast<size_t>(update) % non_finite_.size()];
    found = marks.to(at::kLong);
    marks.zero_();
  }
  communicators_.world->AllReduce(found);
  found = found.cpu();
  std::vector<std::string> names;
  for (size_t p = 0; p < parameters.size(); ++p) {
    if (found.const_data_ptr<int64_t>()[p] > 0) names.push_back(parameters[p].name);
  }
  return names;
}

int64_t ShardedOptimizer::Update(const BlockGradients& gradients, double learning_rate,
                                 double max_norm, const at::Tensor& sum_of_squares,
                                 const at::Tensor& finite) {
  RECORD_USER_SCOPE("update");
  const int64_t update = updates_++;
  if (!on_cpu_) {
    if (!device_scalars_.defined()) {
      device_scalars_ = ops::Device().MakeUpdateScalars(state_.adam_step);
    }
    ops::Device().PrepareUpdate(sum_of_squares, finite, max_norm, options_.adamw.beta1,
                                options_.adamw.beta2, device_scalars_);
    UpdateOnDevice(gradients, learning_rate,
                   non_finite_[static_cast<size_t>(update) % non_finite_.size()]);
    return update;
  }
  const double norm = std::sqrt(sum_of_squares.item<double>());
  if (std::isfinite(norm) && at::isfinite(finite).all().item<bool>()) {
    UpdateOnCpu(gradients, learning_rate, ClipScale(norm, max_norm));
  }
  return update;
}

void ShardedOptimizer::UpdateOnDevice(const BlockGradients& gradients, double learning_rate,
                                      const at::Tensor& non_finite) {
  const auto update = [&](int block) {
    if (!device_segments_[block].defined()) return;
    const OptimizerShard& shard = state_.shards[block];
    ops::Device().UpdateShard({.weight = OwnShard(block, parameters_.BlockValues(block)),
                               .gradient = OwnShard(block, gradients(block)),
                               .exp_avg = shard.exp_avg,
                               .exp_avg_sq = shard.exp_avg_sq,
                               .remainder = shard.master_remainder,
                               .segments = device_segments_[block],
                               .scalars = device_scalars_,
                               .non_finite = non_finite,
                               .learning_rate = learning_rate,
                               .beta1 = options_.adamw.beta1,
                               .beta2 = options_.adamw.beta2,
                               .eps = options_.adamw.eps,
                               .seed = options_.seed});
  };
  // First what other ranks wait for; its all-gathers run beside the rest. They are enqueued last,
  // since enqueuing a collective takes the host longer than a kernel.
  std::vector<int> gathered, own;
  for (size_t b = 0; b < segments_.size(); ++b) {
    const bool shared = GroupOf(parameters_.blocks()[b]).size() > 1;
    (shared ? gathered : own).push_back(static_cast<int>(b));
  }
  for (int block : gathered) update(block);
  ops::Device().MarkBeside();
  for (int block : own) update(block);
  ops::Device().Beside([&] {
    for (int block : gathered) {
      const at::Tensor values = parameters_.BlockValues(block);
      GroupOf(parameters_.blocks()[block]).AllGather(OwnShard(block, values), values);
    }
  });
  ops::Device().JoinBeside();
}

void ShardedOptimizer::UpdateOnCpu(const BlockGradients& gradients, double learning_rate,
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
      const AdamWStep step(options_.adamw, learning_rate, state_.adam_step, gradient_scale,
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
