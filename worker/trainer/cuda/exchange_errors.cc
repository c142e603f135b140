#include "worker/trainer/cuda/exchange_errors.h"

#include <stdexcept>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/dispatch.h"

namespace switchyard::trainer {

std::string DescribeExchangeFailure(uint32_t word, double limit_seconds) {
  using kernels::ExchangeFailure;
  const auto peer = static_cast<int>(word & 0xff);
  const auto late = [&](const char* what) {
    return absl::StrFormat("rank %d of the expert-parallel group did not %s within %.0f s", peer,
                           what, limit_seconds);
  };
  switch (static_cast<ExchangeFailure>(word >> 8)) {
    case ExchangeFailure::kChoicesLate:
      return late("send its choices of experts");
    case ExchangeFailure::kRowsLate:
      return late("send its tokens");
    case ExchangeFailure::kBackLate:
      return late("send its experts' results back");
    case ExchangeFailure::kTakenLate:
      return late("take what this rank had sent before");
    case ExchangeFailure::kBadCount:
      return absl::StrFormat(
          "rank %d of the expert-parallel group sent more rows than a micro-batch has", peer);
    case ExchangeFailure::kBadExpert:
      return "the router of this rank chose an expert that does not exist";
    case ExchangeFailure::kNone:
      break;
  }
  return absl::StrFormat("the exchange of tokens failed (error word %#x)", word);
}

ExchangeErrorWord::ExchangeErrorWord(std::shared_ptr<NcclSession> session)
    : session_(std::move(session)) {
  void* host = nullptr;
  void* device = nullptr;
  cudaError_t error = cudaHostAlloc(&host, sizeof(uint32_t), cudaHostAllocMapped);
  if (error == cudaSuccess) error = cudaHostGetDevicePointer(&device, host, 0);
  if (error != cudaSuccess) {
    throw std::runtime_error(absl::StrFormat("mapped host memory: %s", cudaGetErrorString(error)));
  }
  host_ = static_cast<uint32_t*>(host);
  device_ = static_cast<uint32_t*>(device);
  *host_ = 0;
  const double limit = static_cast<double>(session_->options().time_limit.count()) / 1e3;
  session_->Watch(host_, [limit](uint32_t word) { return DescribeExchangeFailure(word, limit); });
}

ExchangeErrorWord::~ExchangeErrorWord() {
  session_->Unwatch(host_);
  cudaFreeHost(host_);
}

void ExchangeErrorWord::Check() const {
  if (*static_cast<const volatile uint32_t*>(host_) != 0) session_->Check();
}

}  // namespace switchyard::trainer
