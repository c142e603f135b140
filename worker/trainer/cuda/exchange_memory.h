// Device memory of a dispatcher, zero at first.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace switchyard::trainer {

class ExchangeMemory {
 public:
  // Waits for the device.
  explicit ExchangeMemory(int64_t bytes) {
    cudaError_t error = cudaMalloc(&memory_, static_cast<size_t>(bytes));
    if (error == cudaSuccess) error = cudaMemset(memory_, 0, static_cast<size_t>(bytes));
    if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);
    if (error != cudaSuccess) {
      throw std::runtime_error(std::to_string(bytes) +
                               " bytes for a dispatcher: " + cudaGetErrorString(error));
    }
  }
  ~ExchangeMemory() { cudaFree(memory_); }
  ExchangeMemory(const ExchangeMemory&) = delete;
  ExchangeMemory& operator=(const ExchangeMemory&) = delete;

  void* get() const { return memory_; }

 private:
  void* memory_ = nullptr;
};

}  // namespace switchyard::trainer
