#include "worker/trainer/cuda/nccl_window.h"

#include <stdexcept>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/cuda/nccl_window_peers.h"

namespace switchyard::trainer {
namespace {

void CheckCuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(absl::StrFormat("%s: %s", what, cudaGetErrorString(error)));
  }
}

}  // namespace

NcclWindow::NcclWindow(std::shared_ptr<NcclSession> session, ncclComm_t comm, int rank, int size,
                       int64_t bytes)
    : session_(std::move(session)),
      comm_(comm),
      rank_(rank),
      size_(size),
      bytes_((bytes + NCCL_WIN_REQUIRED_ALIGNMENT - 1) / NCCL_WIN_REQUIRED_ALIGNMENT *
             NCCL_WIN_REQUIRED_ALIGNMENT) {
  const ncclResult_t result = ncclMemAlloc(&memory_, static_cast<size_t>(bytes_));
  if (result != ncclSuccess) {
    throw std::runtime_error(absl::StrFormat("%d bytes for the communication window: %s", bytes_,
                                             ncclGetErrorString(result)));
  }
  try {
    Register();
    FindPeers();
  } catch (...) {
    ncclMemFree(memory_);
    throw;
  }
}

void NcclWindow::Register() {
  CheckCuda(cudaMemset(memory_, 0, static_cast<size_t>(bytes_)), "clearing the window");
  CheckCuda(cudaStreamSynchronize(nullptr), "clearing the window");
  session_->Call(comm_, absl::StrFormat("registering a window of %d bytes", bytes_), [&] {
    return ncclCommWindowRegister(comm_, memory_, static_cast<size_t>(bytes_), &window_,
                                  NCCL_WIN_COLL_SYMMETRIC);
  });
  const int reachable = RanksInReach(comm_);
  if (window_ == nullptr || reachable != size_) {
    throw std::runtime_error(
        absl::StrFormat("only %d of the %d GPUs of the expert-parallel group can map each other's "
                        "memory (one host, "
                        "NVLink or PCIe peer access): use the NCCL dispatcher",
                        window_ == nullptr ? 1 : reachable, size_));
  }
}

void NcclWindow::FindPeers() {
  void** table = nullptr;
  peers_.resize(size_);
  CheckCuda(cudaMalloc(reinterpret_cast<void**>(&table), size_ * sizeof(void*)), "cudaMalloc");
  cudaError_t error = WriteWindowPeers(window_, size_, table, nullptr);
  if (error == cudaSuccess) {
    error = cudaMemcpy(peers_.data(), table, size_ * sizeof(void*), cudaMemcpyDeviceToHost);
  }
  cudaFree(table);
  CheckCuda(error, "addresses of the window's peers");
}

NcclWindow::~NcclWindow() {
  try {
    session_->Call(comm_, "giving up a window",
                   [&] { return ncclCommWindowDeregister(comm_, window_); });
    ncclMemFree(memory_);
  } catch (const std::exception&) {
    // The communicator is aborted: peers may still hold the mapping, so the memory stays until the
    // process ends.
  }
}

}  // namespace switchyard::trainer
