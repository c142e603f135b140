// Work beside the current stream: an exchange of tokens while GEMMs run.
//
//   side.Run([&] { dispatcher.CombineGradient(...); });   // after all that is enqueued so far
//   weight gradients on the current stream                // beside it
//   side.Join();                                          // what follows comes after both
//
// Nothing waits on the host, and the two events make it capturable in a graph. What Run touches
// must not be touched by others before Join. An exchange needs multiprocessors that the GEMMs leave
// free: ExchangeBlocks::max_blocks.
#pragma once

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <stdexcept>

namespace switchyard::trainer {

class SideStream {
 public:
  // On the current device. High priority: its blocks go before those of GEMMs that wait as well.
  SideStream() : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true)) {
    for (cudaEvent_t* event : {&fork_, &join_}) {
      if (cudaEventCreateWithFlags(event, cudaEventDisableTiming) != cudaSuccess) {
        throw std::runtime_error("cudaEventCreate failed");
      }
    }
  }
  ~SideStream() {
    cudaEventDestroy(fork_);
    cudaEventDestroy(join_);
  }
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  template <typename Enqueue>
  void Run(const Enqueue& enqueue) {
    cudaEventRecord(fork_, c10::cuda::getCurrentCUDAStream());
    cudaStreamWaitEvent(stream_, fork_, 0);
    {
      c10::cuda::CUDAStreamGuard guard(stream_);
      enqueue();
    }
    cudaEventRecord(join_, stream_);
  }
  void Join() { cudaStreamWaitEvent(c10::cuda::getCurrentCUDAStream(), join_, 0); }

 private:
  c10::cuda::CUDAStream stream_;
  cudaEvent_t fork_ = nullptr, join_ = nullptr;
};

}  // namespace switchyard::trainer
