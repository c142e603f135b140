#include "worker/trainer/cuda/peer_window.h"

#include <ATen/ops/empty.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <stdexcept>

#include "absl/strings/str_format.h"

namespace switchyard::trainer {
namespace {

constexpr int64_t kHandleWords = sizeof(cudaIpcMemHandle_t) / sizeof(int64_t);
static_assert(sizeof(cudaIpcMemHandle_t) % sizeof(int64_t) == 0);

void CheckCuda(cudaError_t error, const std::string& what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(absl::StrFormat("%s: %s", what, cudaGetErrorString(error)));
  }
}

// The same on processes of one running machine only.
int64_t HostId() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return static_cast<int64_t>(std::hash<std::string>()(id));
}

}  // namespace

std::unique_ptr<PeerWindow> PeerWindow::Map(NcclCommunicator& group, int64_t bytes,
                                            std::string* why_not) {
  std::unique_ptr<PeerWindow> window(new PeerWindow(group, bytes));
  const int rank = group.rank(), size = group.size();
  void* memory = nullptr;
  const std::string what = absl::StrFormat("%d bytes for the communication window", bytes);
  CheckCuda(cudaMalloc(&memory, static_cast<size_t>(bytes)), what);
  window->peers_[rank] = static_cast<std::byte*>(memory);
  CheckCuda(cudaMemset(memory, 0, static_cast<size_t>(bytes)), what);
  CheckCuda(cudaStreamSynchronize(nullptr), what);

  // Every rank's host and handle, to every rank.
  const at::Device device(at::kCUDA,
                          static_cast<c10::DeviceIndex>(group.session().options().device));
  at::Tensor own = at::empty({1 + kHandleWords}, at::kLong);
  int64_t* words = own.mutable_data_ptr<int64_t>();
  words[0] = HostId();
  cudaIpcMemHandle_t handle = {};
  cudaError_t error = cudaIpcGetMemHandle(&handle, memory);
  std::memcpy(words + 1, &handle, sizeof(handle));
  at::Tensor all = at::empty({size, 1 + kHandleWords}, own.options().device(device));
  group.AllGather(own.to(device), all);
  group.Barrier();
  all = all.cpu();

  std::string problem;
  if (error != cudaSuccess) problem = cudaGetErrorString(error);
  for (int r = 0; r < size && problem.empty(); ++r) {
    if (r == rank) continue;
    const int64_t* theirs = all.const_data_ptr<int64_t>() + r * (1 + kHandleWords);
    if (theirs[0] != words[0]) {
      problem = absl::StrFormat("rank %d of the group is on another host", r);
      break;
    }
    std::memcpy(&handle, theirs + 1, sizeof(handle));
    void* mapped = nullptr;
    error = cudaIpcOpenMemHandle(&mapped, handle, cudaIpcMemLazyEnablePeerAccess);
    if (error != cudaSuccess) {
      problem = absl::StrFormat("memory of rank %d of the group: %s", r, cudaGetErrorString(error));
      cudaGetLastError();  // not sticky
      break;
    }
    window->peers_[r] = static_cast<std::byte*>(mapped);
  }

  // All or none.
  at::Tensor failures = at::empty({1}, at::kLong);
  *failures.mutable_data_ptr<int64_t>() = problem.empty() ? 0 : 1;
  failures = failures.to(device);
  group.AllReduce(failures);
  group.Barrier();
  if (failures.cpu().const_data_ptr<int64_t>()[0] == 0) return window;
  *why_not = problem.empty() ? "another rank of the group cannot map this one's memory" : problem;
  return nullptr;
}

PeerWindow::~PeerWindow() {
  if (std::uncaught_exceptions() > 0) return;
  try {
    cudaDeviceSynchronize();
    for (int r = 0; r < size(); ++r) {
      if (r != rank_ && peers_[r] != nullptr) cudaIpcCloseMemHandle(peers_[r]);
    }
    group_.Barrier();
    cudaFree(peers_[rank_]);
  } catch (const std::exception&) {
    // A peer is lost: the attempt ends, and with it this process.
  }
}

}  // namespace switchyard::trainer
