#include "kernels/adamw.h"
#include "kernels/device/adamw_math.cuh"
#include "kernels/device/vec.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 256;
// A block takes one run of elements. Many more blocks than fit at once: with a grid that just fits,
// a few blocks that find their place taken by a collective would start when all others have ended.
constexpr int kVectorsPerThread = 16;
constexpr int64_t kBlockElements = int64_t{kThreads} * kVec * kVectorsPerThread;

// The segment of elements that only rise: the last one that begins at or before them. Searched once
// by halves, then by steps: a search for every element would cost more than its memory traffic.
class SegmentCursor {
 public:
  __device__ __forceinline__ SegmentCursor(const AdamwParams& p, int64_t at)
      : segments_(p.segments), count_(p.num_segments) {
    int low = 0, high = count_ - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (segments_[middle].begin <= at) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    index_ = low;
    Load();
  }
  __device__ __forceinline__ const AdamwSegment& MoveTo(int64_t at) {
    while (at >= next_begin_) {
      ++index_;
      Load();
    }
    return segment_;
  }

 private:
  __device__ __forceinline__ void Load() {
    segment_ = segments_[index_];
    next_begin_ = index_ + 1 < count_ ? segments_[index_ + 1].begin : INT64_MAX;
  }

  const AdamwSegment* segments_;
  int count_;
  int index_;
  int64_t next_begin_;
  AdamwSegment segment_;
};

__device__ __forceinline__ void LoadGradient(const AdamwParams& p, int64_t at, float scale,
                                             float (&grad)[kVec]) {
  if (p.grad != nullptr) {
    Load8(p.grad + at, grad);
  } else {
    Load8(p.grad_float32 + at, grad);
  }
#pragma unroll
  for (int j = 0; j < kVec; ++j) grad[j] *= scale;
}

template <typename T>
__device__ __forceinline__ void LoadHalves(const T* p, T (&v)[kVec]) {
  *reinterpret_cast<uint4*>(v) = *reinterpret_cast<const uint4*>(p);
}

template <typename T>
__device__ __forceinline__ void StoreHalves(T* p, const T (&v)[kVec]) {
  *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(v);
}

__global__ void __launch_bounds__(kThreads) ExactKernel(AdamwParams p) {
  const AdamwScalars scalars = *p.scalars;
  if (scalars.skip != 0) return;
  const float scale = scalars.grad_scale;
  const int64_t begin = blockIdx.x * kBlockElements;
  const int64_t end = min(begin + kBlockElements, p.numel);
  const int64_t first = begin + threadIdx.x * kVec;
  SegmentCursor cursor(p, first);
  for (int64_t at = first; at < end; at += kThreads * kVec) {
    alignas(16) uint16_t hi[kVec];
    alignas(16) int16_t remainder[kVec];
    float m[kVec], v[kVec], grad[kVec];
    LoadHalves(reinterpret_cast<const uint16_t*>(p.weight) + at, hi);
    LoadHalves(p.remainder + at, remainder);
    Load8(p.exp_avg + at, m);
    Load8(p.exp_avg_sq + at, v);
    LoadGradient(p, at, scale, grad);
    const float decay = cursor.MoveTo(at).weight_decay;
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      float weight = JoinMaster(hi[j], remainder[j]);
      AdamwUpdate(p, scalars, decay, grad[j], weight, m[j], v[j]);
      SplitMaster(weight, hi[j], remainder[j]);
    }
    StoreHalves(reinterpret_cast<uint16_t*>(p.weight) + at, hi);
    StoreHalves(p.remainder + at, remainder);
    Store8(p.exp_avg + at, m);
    Store8(p.exp_avg_sq + at, v);
  }
}

__global__ void __launch_bounds__(kThreads) CompactKernel(AdamwParams p) {
  const AdamwScalars scalars = *p.scalars;
  if (scalars.skip != 0) return;
  const float scale = scalars.grad_scale;
  const float step_size = p.learning_rate / scalars.correction1,
              inverse_correction2 = 1.0f / scalars.correction2;
  const int64_t begin = blockIdx.x * kBlockElements;
  const int64_t end = min(begin + kBlockElements, p.numel);
  const int64_t first = begin + threadIdx.x * kVec;
  SegmentCursor cursor(p, first);
  for (int64_t at = first; at < end; at += kThreads * kVec) {
    float w[kVec], m[kVec], v[kVec], grad[kVec];
    Load8(p.weight + at, w);
    Load8(p.compact_exp_avg + at, m);
    Load8(p.compact_exp_avg_sq + at, v);
    LoadGradient(p, at, scale, grad);
    const AdamwSegment& segment = cursor.MoveTo(at);
    const AdamwRandom random = DrawAdamw(p.seed, scalars.step, segment.tensor_id,
                                         segment.tensor_offset + (at - segment.begin));
    const float decay_factor = 1.0f - p.learning_rate * segment.weight_decay;
    alignas(16) uint16_t w_out[kVec], m_out[kVec], v_out[kVec];
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      AdamwUpdateApproximate(p, decay_factor, step_size, inverse_correction2, grad[j], w[j], m[j],
                             v[j]);
      w_out[j] = RoundStochastic(w[j], random.weight(j));
      m_out[j] = RoundStochastic(m[j], random.exp_avg(j));
      v_out[j] = RoundStochastic(v[j], random.exp_avg_sq(j));
    }
    StoreHalves(reinterpret_cast<uint16_t*>(p.weight) + at, w_out);
    StoreHalves(reinterpret_cast<uint16_t*>(p.compact_exp_avg) + at, m_out);
    StoreHalves(reinterpret_cast<uint16_t*>(p.compact_exp_avg_sq) + at, v_out);
  }
}

__global__ void PrepareKernel(PrepareAdamwParams p) {
  AdamwScalars s = *p.scalars;
  const double norm = sqrt(*p.sum_of_squares);
  bool finite = isfinite(norm);
  for (int i = 0; i < p.num_finite; ++i) finite = finite && isfinite(p.finite[i]);
  s.grad_norm = static_cast<float>(norm);
  s.skip = finite ? 0 : 1;
  if (finite) {
    ++s.step;
    s.grad_scale =
        p.max_norm > 0 ? static_cast<float>(fmin(1.0, p.max_norm / (norm + 1e-6))) : 1.0f;
    s.correction1 = static_cast<float>(1 - pow(static_cast<double>(p.beta1), s.step));
    s.correction2 = static_cast<float>(1 - pow(static_cast<double>(p.beta2), s.step));
  }
  *p.scalars = s;
}

int Blocks(const AdamwParams& p) {
  return static_cast<int>((p.numel + kBlockElements - 1) / kBlockElements);
}

bool Valid(const AdamwParams& p) {
  return p.numel >= 0 && p.numel % kVec == 0 && p.num_segments > 0 && p.scalars != nullptr &&
         (p.grad != nullptr) != (p.grad_float32 != nullptr);
}

}  // namespace

cudaError_t PrepareAdamw(const PrepareAdamwParams& p, cudaStream_t stream) {
  if (p.sum_of_squares == nullptr || p.scalars == nullptr || p.num_finite < 0)
    return cudaErrorInvalidValue;
  PrepareKernel<<<1, 1, 0, stream>>>(p);
  return cudaGetLastError();
}

cudaError_t AdamwExact(const AdamwParams& p, cudaStream_t stream) {
  if (!Valid(p) || p.remainder == nullptr || p.exp_avg == nullptr || p.exp_avg_sq == nullptr) {
    return cudaErrorInvalidValue;
  }
  if (p.numel == 0) return cudaSuccess;
  ExactKernel<<<Blocks(p), kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

cudaError_t AdamwCompact(const AdamwParams& p, cudaStream_t stream) {
  if (!Valid(p) || p.compact_exp_avg == nullptr || p.compact_exp_avg_sq == nullptr) {
    return cudaErrorInvalidValue;
  }
  if (p.numel == 0) return cudaSuccess;
  CompactKernel<<<Blocks(p), kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
