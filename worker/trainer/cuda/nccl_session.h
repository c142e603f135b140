// The NCCL communicators of one rank, and the thread that watches them.
//
// Nothing waits for a lost peer for ever: joining, splitting and enqueuing have a time limit, and
// the watching thread aborts every communicator when NCCL reports an error, when a collective has
// not finished for longer than the limit, or when a kernel of ours that talks to peers by itself
// says that one is late. From then on every call throws PeerLost with the reason. Knows no tensors.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "worker/trainer/comm/start_limit.h"

namespace switchyard::trainer {

// 128 bytes as 256 hexadecimal digits: the rendezvous id of an attempt, made by rank 0.
std::string NewNcclRendezvousId();

class NcclSession {
 public:
  struct Options {
    std::string rendezvous_id;  // of NewNcclRendezvousId
    int rank = 0, size = 1;
    int device = 0;
    // Of a collective from the moment nothing is queued in front of it any more. Longer than any
    // difference between two ranks' steps: loading, a checkpoint.
    std::chrono::milliseconds time_limit = std::chrono::minutes(5);
    std::chrono::milliseconds join_limit = kStartLimit;  // until all ranks have come
  };

  // Joins the world group. Throws PeerLost when not all ranks come within the limit to join,
  // std::invalid_argument for an id that is none, std::runtime_error for other NCCL errors.
  static std::shared_ptr<NcclSession> Join(const Options& options);
  // Waits for what was enqueued unless a peer is lost; then aborts.
  ~NcclSession();
  NcclSession(const NcclSession&) = delete;
  NcclSession& operator=(const NcclSession&) = delete;

  const Options& options() const { return options_; }
  ncclComm_t world() const { return comms_[0].comm; }
  // A part of the world group: ranks of one color, ordered by key. Every rank of the world calls
  // it. `name` appears in errors: "expert-parallel group".
  ncclComm_t Split(int color, int key, const std::string& name);

  // Runs `call`, which may enqueue on `stream`, and returns when NCCL has enqueued it; does not
  // wait for the device. `what` says what it is: "all_reduce of 4,096 float32". Throws PeerLost.
  void Enqueue(ncclComm_t comm, const std::string& what, cudaStream_t stream,
               const std::function<ncclResult_t()>& call);
  // The same for calls that enqueue nothing (registration).
  void Call(ncclComm_t comm, const std::string& what, const std::function<ncclResult_t()>& call);

  // Throws PeerLost when a peer is lost. To be called after every wait for the device: results may
  // be garbage then.
  void Check();
  // The watching thread reads *word (mapped host memory, written by a kernel) and takes a value
  // other than 0 for a loss, told by `describe`. The word must live until Unwatch.
  void Watch(const uint32_t* word, std::function<std::string(uint32_t)> describe);
  void Unwatch(const uint32_t* word);

 private:
  struct Comm {
    ncclComm_t comm = nullptr;
    std::string name;
  };
  struct Pending {
    std::string what;
    cudaEvent_t event = nullptr;
    std::chrono::steady_clock::time_point since;
  };
  struct Word {
    const uint32_t* word;
    std::function<std::string(uint32_t)> describe;
  };

  explicit NcclSession(const Options& options) : options_(options) {}
  // All below with mutex_ held.
  void Await(ncclComm_t comm, const std::string& what, ncclResult_t result,
             std::chrono::milliseconds limit);
  void Await(ncclComm_t comm, const std::string& what, ncclResult_t result) {
    Await(comm, what, result, options_.time_limit);
  }
  void Lose(const std::string& why);
  void ThrowIfLost();
  void Look();
  const std::string& Name(ncclComm_t comm) const;
  void WatchLoop();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable stopping_;
  bool stop_ = false;
  std::string lost_;  // why; empty while all is well
  std::vector<Comm> comms_;
  std::deque<Pending> pending_;  // not known to have finished, in the order of enqueuing
  std::vector<cudaEvent_t> free_events_;
  std::vector<Word> words_;
  std::thread watcher_;
};

}  // namespace switchyard::trainer
