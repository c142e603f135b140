// The error word of the exchange kernels: where it lies and what it says.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "worker/trainer/cuda/nccl_session.h"

namespace switchyard::trainer {

// "rank 1 of the expert-parallel group did not send its rows within 30 s"
std::string DescribeExchangeFailure(uint32_t word, double limit_seconds);

// A word in mapped host memory that kernels write and the session's thread reads.
class ExchangeErrorWord {
 public:
  explicit ExchangeErrorWord(std::shared_ptr<NcclSession> session);
  ~ExchangeErrorWord();
  ExchangeErrorWord(const ExchangeErrorWord&) = delete;
  ExchangeErrorWord& operator=(const ExchangeErrorWord&) = delete;

  uint32_t* device() const { return device_; }
  // Throws PeerLost when a kernel has written it.
  void Check() const;

 private:
  std::shared_ptr<NcclSession> session_;
  uint32_t* host_ = nullptr;
  uint32_t* device_ = nullptr;
};

}  // namespace switchyard::trainer
