#include "kernels/adamw.h"
#include "kernels/device/adamw_math.cuh"
#include "kernels/device/vec.cuh"

namespace switchyard::kernels {
namespace {

// Many more blocks than fit at once: with a grid that just fits, a few blocks that find their place
// taken by a collective would start when all others have ended.
constexpr int kThreads = 256;
constexpr int64_t kBlockElements = int64_t{kThreads} * kVec * 16;

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
    FindEnd();
  }
  // True when the segment changed.
  __device__ __forceinline__ bool MoveTo(int64_t at) {
    if (at < end_) return false;
    while (at >= end_) {
      ++index_;
      FindEnd();
    }
    return true;
  }
  __device__ __forceinline__ const AdamwSegment& segment() const { return segments_[index_]; }

 private:
  __device__ __forceinline__ void FindEnd() {
    end_ = index_ + 1 < count_ ? segments_[index_ + 1].begin : INT64_MAX;
  }

  const AdamwSegment* segments_;
  int count_;
  int index_;
  int64_t end_;
};

template <typename T>
__device__ __forceinline__ void LoadHalves(const T* p, T (&v)[kVec]) {
  *reinterpret_cast<uint4*>(v) = *reinterpret_cast<const uint4*>(p);
}

template <typename T>
__device__ __forceinline__ void StoreHalves(T* p, const T (&v)[kVec]) {
  *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(v);
}

__device__ __forceinline__ uint4 LoadRaw(const nv_bfloat16* p) {
  return *reinterpret_cast<const uint4*>(p);
}

// What a skipped step leaves behind. Not inlined: it must cost the others no registers.
__device__ __noinline__ void MarkNonFinite(const AdamwParams& p) {
  if (p.non_finite == nullptr) return;
  const int64_t begin = blockIdx.x * kBlockElements;
  const int64_t end = min(begin + kBlockElements, p.numel);
  const int64_t first = begin + threadIdx.x * kVec;
  if (first >= end) return;
  SegmentCursor cursor(p, first);
  for (int64_t at = first; at < end; at += kThreads * kVec) {
    float grad[kVec];
    if (p.grad != nullptr) {
      Load8(p.grad + at, grad);
    } else {
      Load8(p.grad_float32 + at, grad);
    }
    cursor.MoveTo(at);
    bool finite = true;
#pragma unroll
    for (int j = 0; j < kVec; ++j) finite = finite && isfinite(grad[j] * grad[j]);
    // All that write there write the same.
    if (!finite) p.non_finite[cursor.segment().tensor_id >> 16] = 1;
  }
}

__global__ void __launch_bounds__(kThreads) ExactKernel(const __grid_constant__ AdamwParams p) {
  const AdamwScalars scalars = *p.scalars;
  if (scalars.skip != 0) {
    MarkNonFinite(p);
    return;
  }
  const float scale = scalars.grad_scale;
  const int64_t begin = blockIdx.x * kBlockElements;
  const int64_t end = min(begin + kBlockElements, p.numel);
  const int64_t first = begin + threadIdx.x * kVec;
  if (first >= end) return;
  SegmentCursor cursor(p, first);
  float decay = cursor.segment().weight_decay;
  for (int64_t at = first; at < end; at += kThreads * kVec) {
    alignas(16) uint16_t hi[kVec];
    alignas(16) int16_t remainder[kVec];
    float m[kVec], v[kVec], grad[kVec];
    LoadHalves(reinterpret_cast<const uint16_t*>(p.weight) + at, hi);
    LoadHalves(p.remainder + at, remainder);
    Load8(p.exp_avg + at, m);
    Load8(p.exp_avg_sq + at, v);
    if (p.grad != nullptr) {
      Load8(p.grad + at, grad);
    } else {
      Load8(p.grad_float32 + at, grad);
    }
    if (cursor.MoveTo(at)) decay = cursor.segment().weight_decay;
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      float weight = JoinMaster(hi[j], remainder[j]);
      AdamwUpdate(p, scalars, decay, grad[j] * scale, weight, m[j], v[j]);
      SplitMaster(weight, hi[j], remainder[j]);
    }
    StoreHalves(reinterpret_cast<uint16_t*>(p.weight) + at, hi);
    StoreHalves(p.remainder + at, remainder);
    Store8(p.exp_avg + at, m);
    Store8(p.exp_avg_sq + at, v);
  }
}

// Eight elements of `compact`, as they lie in memory.
struct CompactVector {
  uint4 weight, exp_avg, exp_avg_sq;
  uint4 grad;                  // bfloat16
  float4 grad_low, grad_high;  // or float32

  template <bool kGradFloat32>
  __device__ __forceinline__ void Load(const AdamwParams& p, int64_t at) {
    weight = LoadRaw(p.weight + at);
    exp_avg = LoadRaw(p.compact_exp_avg + at);
    exp_avg_sq = LoadRaw(p.compact_exp_avg_sq + at);
    if constexpr (kGradFloat32) {
      grad_low = reinterpret_cast<const float4*>(p.grad_float32 + at)[0];
      grad_high = reinterpret_cast<const float4*>(p.grad_float32 + at)[1];
    } else {
      grad = LoadRaw(p.grad + at);
    }
  }
  template <bool kGradFloat32>
  __device__ __forceinline__ void Gradient(float (&v)[kVec]) const {
    if constexpr (kGradFloat32) {
      v[0] = grad_low.x, v[1] = grad_low.y, v[2] = grad_low.z, v[3] = grad_low.w;
      v[4] = grad_high.x, v[5] = grad_high.y, v[6] = grad_high.z, v[7] = grad_high.w;
    } else {
      Unpack8(grad, v);
    }
  }
};

// Eight finite values rounded and packed. `random`: 16 bits a value.
__device__ __forceinline__ uint4 RoundFinite(const float (&v)[kVec], const uint32_t (&random)[4]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t low = __float_as_uint(v[2 * i]) + (random[i] & 0xffffu);
    const uint32_t high = __float_as_uint(v[2 * i + 1]) + (random[i] >> 16);
    words[i] = __byte_perm(low, high, 0x7632);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// The same of any values.
__device__ __forceinline__ uint4 RoundAny(const float (&v)[kVec], const uint32_t (&random)[4]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = RoundStochastic(v[2 * i], random[i] & 0xffffu) |
               static_cast<uint32_t>(RoundStochastic(v[2 * i + 1], random[i] >> 16)) << 16;
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

template <bool kGradFloat32>
__global__ void __launch_bounds__(kThreads) CompactKernel(const __grid_constant__ AdamwParams p) {
  constexpr int64_t kStride = kThreads * kVec;
  const AdamwScalars scalars = *p.scalars;
  if (scalars.skip != 0) {
    MarkNonFinite(p);
    return;
  }
  AdamwFactors factors;
  factors.grad_first = (1.0f - p.beta1) * scalars.grad_scale;
  factors.grad_second = sqrtf(1.0f - p.beta2) * scalars.grad_scale;
  factors.root = rsqrtf(scalars.correction2);
  factors.step = p.learning_rate / scalars.correction1;
  const int64_t begin = blockIdx.x * kBlockElements;
  const int64_t end = min(begin + kBlockElements, p.numel);
  const int64_t first = begin + threadIdx.x * kVec;
  if (first >= end) return;
  SegmentCursor cursor(p, first);
  AdamwKey key;
  int64_t shift;  // from a place in the range to one in the tensor
  const auto enter = [&] {
    const AdamwSegment segment = cursor.segment();
    key = MakeAdamwKey(p.seed, scalars.step, segment.tensor_id);
    shift = segment.tensor_offset - segment.begin;
    factors.decay = 1.0f - p.learning_rate * segment.weight_decay;
  };
  enter();
  CompactVector next;
  next.Load<kGradFloat32>(p, first);
  for (int64_t at = first; at < end; at += kStride) {
    const CompactVector now = next;
    if (at + kStride < end) next.Load<kGradFloat32>(p, at + kStride);
    float w[kVec], m[kVec], v[kVec], grad[kVec];
    Unpack8(now.weight, w);
    Unpack8(now.exp_avg, m);
    Unpack8(now.exp_avg_sq, v);
    now.Gradient<kGradFloat32>(grad);
    if (cursor.MoveTo(at)) enter();
    const AdamwRandom random = DrawAdamw(key, at + shift);
    // Stays 0 while all is finite: adding random bits keeps infinities but not every NaN, and one
    // in a moment is one in the weight.
    float probe = 0;
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      AdamwUpdateApproximate(p, factors, grad[j], w[j], m[j], v[j]);
      probe = fmaf(w[j], 0.0f, probe);
    }
    uint32_t for_m[4], for_v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      for_m[i] = AdamwRandom::ForExpAvg(random.word[i]);
      for_v[i] = AdamwRandom::ForExpAvgSq(random.word[i]);
    }
    uint4 weight_out, exp_avg_out, exp_avg_sq_out;
    if (probe == 0.0f) [[likely]] {
      weight_out = RoundFinite(w, random.word);
      exp_avg_out = RoundFinite(m, for_m);
      exp_avg_sq_out = RoundFinite(v, for_v);
    } else {
      weight_out = RoundAny(w, random.word);
      exp_avg_out = RoundAny(m, for_m);
      exp_avg_sq_out = RoundAny(v, for_v);
    }
    *reinterpret_cast<uint4*>(p.weight + at) = weight_out;
    *reinterpret_cast<uint4*>(p.compact_exp_avg + at) = exp_avg_out;
    *reinterpret_cast<uint4*>(p.compact_exp_avg_sq + at) = exp_avg_sq_out;
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
  if (p.grad_float32 != nullptr) {
    CompactKernel<true><<<Blocks(p), kThreads, 0, stream>>>(p);
  } else {
    CompactKernel<false><<<Blocks(p), kThreads, 0, stream>>>(p);
  }
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
