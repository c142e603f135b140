// Memory on both sides for kernel tests, random inputs, and the error measure.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/reference/bf16.h"

namespace switchyard::kernels {

inline bool HaveGpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

#define SWITCHYARD_REQUIRE_GPU() \
  if (!HaveGpu()) GTEST_SKIP() << "no GPU on this machine: the kernel was built but not run"

// n elements on the host and on the device. Outputs begin as garbage on both sides (different
// garbage), so that an element nobody wrote is noticed.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t n) : host_(n) {
    std::memset(static_cast<void*>(host_.data()), 0x3c, n * sizeof(T));
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&device_), n * sizeof(T) + 16), cudaSuccess);
    EXPECT_EQ(cudaMemset(device_, 0x7f, n * sizeof(T)), cudaSuccess);
  }
  ~Buffer() { cudaFree(device_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* host() { return host_.data(); }
  T* device() { return device_; }
  size_t size() const { return host_.size(); }
  T& operator[](size_t i) { return host_[i]; }
  void Upload() {
    EXPECT_EQ(cudaMemcpy(device_, host_.data(), host_.size() * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  std::vector<T> Download() const {
    std::vector<T> out(host_.size());
    EXPECT_EQ(cudaMemcpy(out.data(), device_, out.size() * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return out;
  }

 private:
  std::vector<T> host_;
  T* device_ = nullptr;
};

inline std::mt19937& Rng() {
  static std::mt19937 rng(20260101);
  return rng;
}

inline void FillNormal(Buffer<nv_bfloat16>& b, double scale = 1.0, double mean = 0.0) {
  std::normal_distribution<double> normal(mean, scale);
  for (size_t i = 0; i < b.size(); ++i) b[i] = ToBf16(normal(Rng()));
  b.Upload();
}

inline void FillNormal(Buffer<float>& b, double scale = 1.0, double mean = 0.0) {
  std::normal_distribution<float> normal(mean, scale);
  for (size_t i = 0; i < b.size(); ++i) b[i] = normal(Rng());
  b.Upload();
}

inline double ToDouble(nv_bfloat16 v) { return ToFloat(v); }
inline double ToDouble(float v) { return v; }

// ||device - host|| / ||host|| over the first n elements.
template <typename T>
double RelativeError(Buffer<T>& b, size_t n) {
  const std::vector<T> device = b.Download();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = ToDouble(device[i]) - ToDouble(b[i]);
    difference += d * d;
    norm += ToDouble(b[i]) * ToDouble(b[i]);
  }
  return std::sqrt(difference / norm);  // NaN fails every comparison
}
template <typename T>
double RelativeError(Buffer<T>& b) {
  return RelativeError(b, b.size());
}

template <typename T>
bool SameBytes(Buffer<T>& b, size_t n) {
  const std::vector<T> device = b.Download();
  return std::memcmp(device.data(), b.host(), n * sizeof(T)) == 0;
}
template <typename T>
bool SameBytes(Buffer<T>& b) {
  return SameBytes(b, b.size());
}

// Rounding to bfloat16 alone gives about 1.7e-3 in the worst case of this measure; float32 sums
// under 1e-5.
inline constexpr double kBf16Tolerance = 2.0e-3;
inline constexpr double kFloatTolerance = 1.0e-5;

}  // namespace switchyard::kernels
