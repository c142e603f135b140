#include "worker/trainer/comm/shm_communicator.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

namespace switchyard::trainer {
namespace {

constexpr int64_t kBlock = 1024;           // elements summed at once
constexpr int64_t kSmallBytes = 32 << 10;  // below, every rank sums all of an all-reduce by itself

struct Sum {
  template <typename T>
  static T Apply(T a, T b) {
    return a + b;
  }
};

struct Maximum {
  template <typename T>
  static T Apply(T a, T b) {
    return a < b ? b : a;
  }
};

// out[i] = parts[0][i] op parts[1][i] ..., in this order, accumulated in Acc. out may be one of the
// parts.
template <typename Op, typename T, typename Acc>
void Combine(const std::vector<const std::byte*>& parts, int64_t count, std::byte* out) {
  Acc sum[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const T* first = reinterpret_cast<const T*>(parts[0]) + begin;
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<Acc>(first[i]);
    for (size_t p = 1; p < parts.size(); ++p) {
      const T* part = reinterpret_cast<const T*>(parts[p]) + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] = Op::Apply(sum[i], static_cast<Acc>(part[i]));
    }
    T* to = reinterpret_cast<T*>(out) + begin;
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(sum[i]);
  }
}

using CombineFunction = void (*)(const std::vector<const std::byte*>&, int64_t, std::byte*);

CombineFunction SumOf(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return Combine<Sum, float, float>;
    case at::kBFloat16:
      return Combine<Sum, c10::BFloat16, float>;
    case at::kDouble:
      return Combine<Sum, double, double>;
    case at::kLong:
      return Combine<Sum, int64_t, int64_t>;
    default:
      TORCH_CHECK(false, "cannot sum tensors of type ", type);
  }
}

CombineFunction MaximumOf(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return Combine<Maximum, double, double>;
    case at::kLong:
      return Combine<Maximum, int64_t, int64_t>;
    default:
      TORCH_CHECK(false, "cannot take the maximum of tensors of type ", type);
  }
}

std::byte* Bytes(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.is_cpu(), "collectives take contiguous CPU tensors");
  return static_cast<std::byte*>(tensor.data_ptr());
}

void AllReduceWith(CombineFunction combine, ShmGroup& group, at::Tensor& tensor,
                   int64_t chunk_bytes, const std::function<int()>& next_buffer) {
  std::byte* data = Bytes(tensor);
  const int64_t item = tensor.element_size();
  const int64_t chunk = chunk_bytes / item;
  const int ranks = group.size();
  std::vector<const std::byte*> parts(ranks);
  for (int64_t begin = 0; begin < tensor.numel(); begin += chunk) {
    const int64_t count = std::min(chunk, tensor.numel() - begin);
    const int buffer = next_buffer();
    std::memcpy(group.staging(group.rank(), buffer), data + begin * item, count * item);
    group.Barrier();
    if (count * item <= kSmallBytes) {
      for (int r = 0; r < ranks; ++r) parts[r] = group.staging(r, buffer);
      combine(parts, count, data + begin * item);
      continue;
    }
    // Rank r sums part r in its own staging buffer, whose part r nobody else reads before the
    // barrier.
    const auto part_begin = [&](int r) { return count * r / ranks; };
    const int64_t own = part_begin(group.rank());
    for (int r = 0; r < ranks; ++r) parts[r] = group.staging(r, buffer) + own * item;
    combine(parts, part_begin(group.rank() + 1) - own,
            group.staging(group.rank(), buffer) + own * item);
    group.Barrier();
    for (int r = 0; r < ranks; ++r) {
      const int64_t offset = part_begin(r) * item;
      std::memcpy(data + begin * item + offset, group.staging(r, buffer) + offset,
                  (part_begin(r + 1) - part_begin(r)) * item);
    }
  }
}

}  // namespace

void ShmCommunicator::AllReduce(at::Tensor tensor) {
  AllReduceWith(SumOf(tensor.scalar_type()), *group_, tensor, group_->staging_bytes(),
                [this] { return NextBuffer(); });
}

void ShmCommunicator::AllReduceMax(at::Tensor tensor) {
  AllReduceWith(MaximumOf(tensor.scalar_type()), *group_, tensor, group_->staging_bytes(),
                [this] { return NextBuffer(); });
}

void ShmCommunicator::ReduceScatter(const at::Tensor& input, at::Tensor output) {
  const int64_t ranks = size();
  const int64_t numel = output.numel();
  TORCH_CHECK(input.numel() == numel * ranks && input.scalar_type() == output.scalar_type(),
              "reduce-scatter of ", input.numel(), " elements over ", ranks, " ranks into ", numel);
  const CombineFunction combine = SumOf(input.scalar_type());
  const int64_t item = input.element_size();
  const int64_t chunk = group_->staging_bytes() / item / ranks;  // elements for each destination
  const std::byte* in = Bytes(input);
  std::byte* out = Bytes(output);
  std::vector<const std::byte*> parts(ranks);
  for (int64_t begin = 0; begin < numel; begin += chunk) {
    const int64_t count = std::min(chunk, numel - begin);
    const int buffer = NextBuffer();
    for (int64_t to = 0; to < ranks; ++to) {
      std::memcpy(group_->staging(rank(), buffer) + to * count * item,
                  in + (to * numel + begin) * item, count * item);
    }
    group_->Barrier();
    for (int r = 0; r < ranks; ++r) parts[r] = group_->staging(r, buffer) + rank() * count * item;
    combine(parts, count, out + begin * item);
  }
}

void ShmCommunicator::AllGather(const at::Tensor& input, at::Tensor output) {
  const int64_t numel = input.numel();
  TORCH_CHECK(output.numel() == numel * size() && input.scalar_type() == output.scalar_type(),
              "all-gather of ", numel, " elements from ", size(), " ranks into ", output.numel());
  const int64_t bytes = numel * input.element_size();
  const std::byte* in = Bytes(input);
  std::byte* out = Bytes(output);
  for (int64_t begin = 0; begin < bytes; begin += group_->staging_bytes()) {
    const int64_t count = std::min(group_->staging_bytes(), bytes - begin);
    const int buffer = NextBuffer();
    std::memcpy(group_->staging(rank(), buffer), in + begin, count);
    group_->Barrier();
    for (int r = 0; r < size(); ++r) {
      std::byte* to = out + r * bytes + begin;
      if (to != in + begin) std::memcpy(to, group_->staging(r, buffer), count);
    }
  }
}

void ShmCommunicator::Broadcast(at::Tensor tensor, int root) {
  std::byte* data = Bytes(tensor);
  const int64_t bytes = tensor.numel() * tensor.element_size();
  for (int64_t begin = 0; begin < bytes; begin += group_->staging_bytes()) {
    const int64_t count = std::min(group_->staging_bytes(), bytes - begin);
    const int buffer = NextBuffer();
    if (rank() == root) std::memcpy(group_->staging(root, buffer), data + begin, count);
    group_->Barrier();
    if (rank() != root) std::memcpy(data + begin, group_->staging(root, buffer), count);
  }
}

}  // namespace switchyard::trainer
