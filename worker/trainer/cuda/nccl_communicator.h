// Communicator over NCCL: enqueues on the current CUDA stream and never waits for the device,
// except Barrier.
//
// Sums are NCCL's: in the tensor's type for float32, float64 and int64; bfloat16 is added in
// float32 and rounded at every hop of the ring (or tree), in an order that depends on the group's
// size and on the tensor's length but not on timing: the same job on the same mesh gives the same
// bytes, and every rank gets the same bytes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/cuda/nccl_session.h"

namespace switchyard::trainer {

class NcclCommunicator final : public Communicator {
 public:
  // `comm` is one of the session's.
  NcclCommunicator(std::shared_ptr<NcclSession> session, ncclComm_t comm, int rank, int size)
      : session_(std::move(session)), comm_(comm), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  at::Device device() const override {
    return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(session_->options().device));
  }
  void Check() override { session_->Check(); }

  void AllReduce(at::Tensor tensor) override;
  void AllReduceMax(at::Tensor tensor) override;
  void ReduceScatter(const at::Tensor& input, at::Tensor output) override;
  void AllGather(const at::Tensor& input, at::Tensor output) override;
  void Broadcast(at::Tensor tensor, int root) override;
  // Waits until every rank's current stream has come here. Throws PeerLost at the time limit.
  void Barrier() override;

  // Sends `bytes` from send[r] to every other rank r, where they arrive in its receive[rank()].
  struct Parcel {
    std::vector<const void*> send;
    std::vector<void*> receive;
    int64_t bytes = 0;
  };
  // All parcels in one go.
  void AllToAll(const std::vector<Parcel>& parcels);

  NcclSession& session() { return *session_; }
  const std::shared_ptr<NcclSession>& shared_session() const { return session_; }
  ncclComm_t comm() const { return comm_; }

 private:
  std::shared_ptr<NcclSession> session_;
  ncclComm_t comm_;
  int rank_, size_;
  at::Tensor barrier_;  // int64 [1]
};

}  // namespace switchyard::trainer
