// Collectives of a group of ranks.
//
// On CPU over POSIX shared memory between processes (shm_communicator.h), on GPUs over NCCL
// (cuda/nccl_communicator.h), enqueued on the current stream. Every member calls the same
// operations in the same order. Sums are taken in rank order in float32 (float64 for float64; NCCL:
// in its own order), so results do not depend on timing and are the same bytes on every rank.
// Tensors must be contiguous and on the communicator's device. Throws PeerLost when a peer is gone
// or silent for longer than the time limit.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <stdexcept>
#include <string>

namespace switchyard::trainer {

// A peer died or stopped answering; the attempt is over.
class PeerLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Where tensors must lie.
  virtual at::Device device() const { return at::kCPU; }

  // For devices that run behind the host: throws PeerLost when a peer has been lost since. Call
  // after waiting for the device; what it computed may be garbage then.
  virtual void Check() {}

  // tensor = sum over ranks; float32, bfloat16, float64 or int64, any shape.
  virtual void AllReduce(at::Tensor tensor) = 0;
  // tensor = maximum over ranks; int64 or float64.
  virtual void AllReduceMax(at::Tensor tensor) = 0;
  // output [n] = part `rank` of the sum over ranks of input [size * n]. output may alias that part
  // of input.
  virtual void ReduceScatter(const at::Tensor& input, at::Tensor output) = 0;
  // output [size * n] = inputs [n] of all ranks in rank order. input may alias its part of output.
  virtual void AllGather(const at::Tensor& input, at::Tensor output) = 0;
  // tensor = tensor of rank `root`.
  virtual void Broadcast(at::Tensor tensor, int root) = 0;
  virtual void Barrier() = 0;
};

// The three groups of a rank; see common/mesh.h. Groups of one rank are valid and do nothing.
struct MeshCommunicators {
  std::unique_ptr<Communicator> world;
  std::unique_ptr<Communicator> ep;
  std::unique_ptr<Communicator> edp;
};

}  // namespace switchyard::trainer
