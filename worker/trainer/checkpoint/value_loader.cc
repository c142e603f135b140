#include "worker/trainer/checkpoint/value_loader.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "common/check.h"
#include "common/status_macros.h"
#include "worker/trainer/checkpoint/element_convert.h"
#include "worker/trainer/checkpoint/parallel.h"

namespace switchyard::trainer {
namespace {

constexpr int64_t kChunk = int64_t{1} << 20;  // elements converted at once
constexpr int64_t kShare = int64_t{1} << 24;  // elements that a thread takes at once

struct Segment {
  int block = 0;
  BlockSegment part;
};

// Order of the bytes on disk, so that files are read forwards.
void SortByPosition(const std::vector<ValueSource>& sources, std::vector<Segment>& segments) {
  const auto key = [&sources](const Segment& segment) {
    const TensorSource& source = sources[segment.part.tensor].value;
    return std::tuple(source.file, source.tensor->begin, segment.part.tensor_offset);
  };
  std::sort(segments.begin(), segments.end(),
            [&key](const Segment& a, const Segment& b) { return key(a) < key(b); });
}

void CopyIn(const void* host, int64_t count, at::Tensor to) {
  if (to.is_cpu()) {  // without the threads that an operation of torch would bring along
    std::memcpy(to.data_ptr(), host, static_cast<size_t>(count) * to.element_size());
    return;
  }
  to.copy_(
      at::from_blob(const_cast<void*>(host), {count}, at::TensorOptions().dtype(to.scalar_type())));
}

// With buffers of its own: one a thread.
class Loader {
 public:
  Loader(const std::vector<ValueSource>& sources, const ParameterRegistry& registry,
         OptimizerState* state)
      : sources_(sources), registry_(registry), state_(state) {}

  absl::Status Load(const Segment& segment) {
    const TensorSource& source = sources_[segment.part.tensor].value;
    if (sources_[segment.part.tensor].remainder.file != nullptr) return LoadSplit(segment);
    const ParameterBlock& block = registry_.blocks()[segment.block];
    const at::Tensor values = registry_.BlockValues(segment.block);
    const bool to_float = values.scalar_type() == at::kFloat;
    const DataType wanted = to_float ? DataType::kF32 : DataType::kBF16;
    const bool same = source.tensor->dtype == wanted;
    if (same && values.is_cpu()) {
      char* to =
          static_cast<char*>(values.data_ptr()) + segment.part.block_offset * DataTypeBytes(wanted);
      return source.file->Read(*source.tensor, segment.part.tensor_offset, segment.part.count, to);
    }
    for (int64_t done = 0; done < segment.part.count; done += kChunk) {
      const int64_t count = std::min(kChunk, segment.part.count - done);
      const int64_t offset = segment.part.block_offset + done;
      raw_.resize(static_cast<size_t>(count * DataTypeBytes(source.tensor->dtype)));
      SWITCHYARD_RETURN_IF_ERROR(
          source.file->Read(*source.tensor, segment.part.tensor_offset + done, count, raw_.data()));
      at::Tensor to = values.narrow(0, offset, count);
      if (same) {
        CopyIn(raw_.data(), count, to);
        continue;
      }
      master_.resize(static_cast<size_t>(count));
      ToFloat(source.tensor->dtype, raw_.data(), master_.data(), count);
      if (to_float) {
        CopyIn(master_.data(), count, to);
        continue;
      }
      weight_.resize(static_cast<size_t>(count));
      remainder_.resize(static_cast<size_t>(count));
      SplitMaster(master_.data(), weight_.data(), remainder_.data(), count);
      CopyIn(weight_.data(), count, to);
      KeepRemainder(segment.block, block, offset, count);
    }
    return absl::OkStatus();
  }

 private:
  // A value that stands in two tensors, weight and remainder.
  absl::Status LoadSplit(const Segment& segment) {
    const auto& [value, remainder] = sources_[segment.part.tensor];
    SWITCHYARD_CHECK(value.tensor->dtype == DataType::kBF16, "a remainder completes a bfloat16");
    const at::Tensor values = registry_.BlockValues(segment.block);
    for (int64_t done = 0; done < segment.part.count; done += kChunk) {
      const int64_t count = std::min(kChunk, segment.part.count - done);
      const int64_t from = segment.part.tensor_offset + done;
      const int64_t offset = segment.part.block_offset + done;
      weight_.resize(static_cast<size_t>(count));
      remainder_.resize(static_cast<size_t>(count));
      SWITCHYARD_RETURN_IF_ERROR(value.file->Read(*value.tensor, from, count, weight_.data()));
      SWITCHYARD_RETURN_IF_ERROR(
          remainder.file->Read(*remainder.tensor, from, count, remainder_.data()));
      at::Tensor to = values.narrow(0, offset, count);
      if (values.scalar_type() == at::kFloat) {
        master_.resize(static_cast<size_t>(count));
        JoinMaster(weight_.data(), remainder_.data(), master_.data(), count);
        CopyIn(master_.data(), count, to);
        continue;
      }
      CopyIn(weight_.data(), count, to);
      KeepRemainder(segment.block, registry_.blocks()[segment.block], offset, count);
    }
    return absl::OkStatus();
  }

  // Stores what of remainder_ [offset, offset + count) of the block this rank owns.
  void KeepRemainder(int index, const ParameterBlock& block, int64_t offset, int64_t count) {
    if (state_ == nullptr) return;
    const at::Tensor& remainder = state_->shards[index].master_remainder;
    if (!remainder.defined()) return;
    const int64_t own = registry_.shard_index(block) * block.shard_numel();
    const int64_t from = std::max(offset, own);
    const int64_t to = std::min(offset + count, own + block.shard_numel());
    if (from >= to) return;
    CopyIn(remainder_.data() + (from - offset), to - from,
           remainder.narrow(0, from - own, to - from));
  }

  const std::vector<ValueSource>& sources_;
  const ParameterRegistry& registry_;
  OptimizerState* state_;
  std::vector<char> raw_;
  std::vector<float> master_;
  std::vector<uint16_t> weight_;
  std::vector<int16_t> remainder_;
};

// Zeros what no segment covers. `segments` are of one range [begin, begin + flat.numel()), by
// block_offset.
void ZeroPadding(const std::vector<BlockSegment>& segments, int64_t begin, const at::Tensor& flat) {
  int64_t next = 0;
  const auto zero = [&](int64_t to) {
    if (to > next) flat.narrow(0, next, to - next).zero_();
  };
  for (const BlockSegment& segment : segments) {
    zero(segment.block_offset - begin);
    next = segment.block_offset - begin + segment.count;
  }
  zero(flat.numel());
}

// What was enqueued for the tensor so far, its zeros among it, is done: the threads that copy into
// it have streams of their own.
void WaitForDevice(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return;
  const c10::impl::VirtualGuardImpl device(tensor.device().type());
  device.synchronizeStream(device.getStream(tensor.device()));
}

}  // namespace

absl::Status LoadValues(const std::vector<ValueSource>& sources, const CheckpointMap& map,
                        const ParameterRegistry& registry, OptimizerState* state) {
  const at::ScalarType type = registry.values().scalar_type();
  SWITCHYARD_CHECK(type == at::kFloat || type == at::kBFloat16,
                   "parameters are float32 or bfloat16");
  SWITCHYARD_CHECK(registry.values().numel() == registry.total_numel(),
                   "values of the registry's size");
  std::vector<Segment> segments;
  for (size_t b = 0; b < registry.blocks().size(); ++b) {
    const int block = static_cast<int>(b);
    const std::vector<BlockSegment> parts =
        map.Segments(block, 0, registry.blocks()[b].numel, /*with_copies=*/false);
    ZeroPadding(parts, 0, registry.BlockValues(block));
    for (const BlockSegment& part : parts) {
      for (int64_t done = 0; done < part.count; done += kShare) {
        segments.push_back({block,
                            {part.tensor, part.tensor_offset + done, part.block_offset + done,
                             std::min(kShare, part.count - done)}});
      }
    }
    // Right for every bfloat16 source without a remainder; other sources overwrite it.
    if (state != nullptr && state->shards[b].master_remainder.defined()) {
      state->shards[b].master_remainder.zero_();
    }
  }
  WaitForDevice(registry.values());
  SortByPosition(sources, segments);
  std::vector<Loader> loaders(static_cast<size_t>(FileThreads()), Loader(sources, registry, state));
  return ForEachInParallel(segments.size(), FileThreads(), [&](int worker, size_t i) {
    return loaders[static_cast<size_t>(worker)].Load(segments[i]);
  });
}

absl::Status LoadShard(const std::vector<TensorSource>& sources, const CheckpointMap& map,
                       const ParameterRegistry& registry, int block, at::Tensor flat) {
  const ParameterBlock& info = registry.blocks()[block];
  const int64_t begin = registry.shard_index(info) * info.shard_numel();
  SWITCHYARD_CHECK(flat.numel() == info.shard_numel(), "optimizer state of the shard's size");
  const std::vector<BlockSegment> parts =
      map.Segments(block, begin, begin + info.shard_numel(), /*with_copies=*/false);
  ZeroPadding(parts, begin, flat);
  WaitForDevice(flat);
  const auto width = static_cast<int64_t>(flat.element_size());
  std::vector<std::vector<char>> buffers(static_cast<size_t>(FileThreads()));
  return ForEachInParallel(parts.size(), FileThreads(), [&](int worker, size_t i) -> absl::Status {
    std::vector<char>& raw = buffers[static_cast<size_t>(worker)];
    const BlockSegment& part = parts[i];
    const TensorSource& source = sources[part.tensor];
    SWITCHYARD_CHECK(DataTypeBytes(source.tensor->dtype) == width,
                     "optimizer state of the file's dtype");
    for (int64_t done = 0; done < part.count; done += kChunk) {
      const int64_t count = std::min(kChunk, part.count - done);
      raw.resize(static_cast<size_t>(count * width));
      SWITCHYARD_RETURN_IF_ERROR(
          source.file->Read(*source.tensor, part.tensor_offset + done, count, raw.data()));
      CopyIn(raw.data(), count, flat.narrow(0, part.block_offset - begin + done, count));
    }
    return absl::OkStatus();
  });
}

}  // namespace switchyard::trainer
