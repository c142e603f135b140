#include "worker/trainer/cuda/nccl_session.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "worker/trainer/comm/communicator.h"

namespace switchyard::trainer {
namespace {

using std::chrono::steady_clock;

constexpr auto kLookEvery = std::chrono::milliseconds(50);
constexpr auto kPollEvery = std::chrono::microseconds(20);
constexpr auto kSpinFor = std::chrono::milliseconds(1);

double Seconds(std::chrono::milliseconds time) { return static_cast<double>(time.count()) / 1e3; }

void CheckCuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(absl::StrFormat("%s: %s", what, cudaGetErrorString(error)));
  }
}

}  // namespace

std::string NewNcclRendezvousId() {
  ncclUniqueId id;
  const ncclResult_t result = ncclGetUniqueId(&id);
  if (result != ncclSuccess) {
    throw std::runtime_error(absl::StrFormat("ncclGetUniqueId: %s", ncclGetErrorString(result)));
  }
  return absl::BytesToHexString(absl::string_view(id.internal, sizeof(id.internal)));
}

std::shared_ptr<NcclSession> NcclSession::Join(const Options& options) {
  ncclUniqueId id;
  const std::string bytes = absl::HexStringToBytes(options.rendezvous_id);
  if (options.rendezvous_id.size() != 2 * sizeof(id.internal) ||
      bytes.size() != sizeof(id.internal)) {
    throw std::invalid_argument(absl::StrFormat(
        "rendezvous id has %d characters; on GPUs it is %d hexadecimal digits made by rank 0",
        options.rendezvous_id.size(), 2 * sizeof(id.internal)));
  }
  std::memcpy(id.internal, bytes.data(), sizeof(id.internal));
  CheckCuda(cudaSetDevice(options.device), "cudaSetDevice");

  std::shared_ptr<NcclSession> session(new NcclSession(options));
  std::lock_guard lock(session->mutex_);
  session->comms_.push_back({nullptr, "world group"});
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t& comm = session->comms_[0].comm;
  const ncclResult_t result =
      ncclCommInitRankConfig(&comm, options.size, id, options.rank, &config);
  session->Await(comm, absl::StrFormat("joining %d ranks", options.size), result,
                 options.join_limit);
  session->watcher_ = std::thread([raw = session.get()] { raw->WatchLoop(); });
  return session;
}

NcclSession::~NcclSession() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopping_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  std::lock_guard lock(mutex_);
  // An error of this rank: its peers may never finish what is outstanding.
  if (std::uncaught_exceptions() > 0) Lose("this rank has failed");
  // Children first. Outstanding work has a limit, so destroying ends.
  while (lost_.empty() && !pending_.empty()) {
    Look();
    std::this_thread::sleep_for(kPollEvery);
  }
  while (lost_.empty() && !comms_.empty()) {
    const ncclComm_t comm = comms_.back().comm;
    try {
      Await(comm, "leaving", ncclCommFinalize(comm));
      ncclCommDestroy(comm);
      comms_.pop_back();
    } catch (const std::exception&) {
      break;  // aborted by Lose
    }
  }
  for (const Pending& pending : pending_) cudaEventDestroy(pending.event);
  for (cudaEvent_t event : free_events_) cudaEventDestroy(event);
}

const std::string& NcclSession::Name(ncclComm_t comm) const {
  for (const Comm& known : comms_) {
    if (known.comm == comm) return known.name;
  }
  return comms_[0].name;
}

// Non-blocking communicators do their work in a thread of NCCL; until it is done nothing else may
// be called on them.
void NcclSession::Await(ncclComm_t comm, const std::string& what, ncclResult_t result,
                        std::chrono::milliseconds limit) {
  const auto start = steady_clock::now();
  while (result == ncclInProgress) {
    const ncclResult_t asked = ncclCommGetAsyncError(comm, &result);
    if (asked != ncclSuccess) result = asked;
    if (result != ncclInProgress) break;
    if (steady_clock::now() - start > limit) {
      Lose(absl::StrFormat("%s (%s) did not start within %.0f s: a peer is gone or stuck", what,
                           Name(comm), Seconds(limit)));
      ThrowIfLost();
    }
    // Enqueuing takes tens of microseconds, of which a sleep would make hundreds.
    if (steady_clock::now() - start > kSpinFor) std::this_thread::sleep_for(kPollEvery);
  }
  if (result == ncclSuccess) return;
  const char* detail = ncclGetLastError(comm);
  const std::string text = absl::StrFormat(
      "%s (%s): %s%s%s", what, Name(comm), ncclGetErrorString(result),
      detail != nullptr && *detail != 0 ? ": " : "", detail != nullptr ? detail : "");
  Lose(text);
  if (result == ncclRemoteError || result == ncclSystemError) ThrowIfLost();
  throw std::runtime_error(text);
}

ncclComm_t NcclSession::Split(int color, int key, const std::string& name) {
  std::lock_guard lock(mutex_);
  ThrowIfLost();
  ncclComm_t comm = nullptr;
  const std::string what = "forming the " + name;
  const auto start = steady_clock::now();
  Await(world(), what, ncclCommSplit(world(), color, key, &comm, nullptr));
  // NCCL fills in the new communicator from its own thread, which the parent's state may not show.
  while (*static_cast<ncclComm_t volatile*>(&comm) == nullptr) {
    Await(world(), what, ncclInProgress);
    if (steady_clock::now() - start > options_.time_limit) {
      Lose(absl::StrFormat("%s did not end within %.0f s: a peer is gone or stuck", what,
                           Seconds(options_.time_limit)));
      ThrowIfLost();
    }
    std::this_thread::sleep_for(kPollEvery);
  }
  comms_.push_back({comm, name});
  Await(comm, what, ncclInProgress);
  return comm;
}

void NcclSession::Call(ncclComm_t comm, const std::string& what,
                       const std::function<ncclResult_t()>& call) {
  std::lock_guard lock(mutex_);
  ThrowIfLost();
  Await(comm, what, call());
}

void NcclSession::Enqueue(ncclComm_t comm, const std::string& what, cudaStream_t stream,
                          const std::function<ncclResult_t()>& call) {
  std::lock_guard lock(mutex_);
  ThrowIfLost();
  Await(comm, what, call());
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(stream, &capturing);
  if (capturing != cudaStreamCaptureStatusNone)
    return;  // replays are watched by who waits for them
  Pending pending = {absl::StrFormat("%s (%s)", what, Name(comm)), nullptr, steady_clock::now()};
  if (free_events_.empty()) {
    CheckCuda(cudaEventCreateWithFlags(&pending.event, cudaEventDisableTiming), "cudaEventCreate");
  } else {
    pending.event = free_events_.back();
    free_events_.pop_back();
  }
  pending_.push_back(std::move(pending));
  CheckCuda(cudaEventRecord(pending_.back().event, stream), what.c_str());
}

void NcclSession::Check() {
  std::lock_guard lock(mutex_);
  if (lost_.empty()) Look();
  ThrowIfLost();
}

void NcclSession::ThrowIfLost() {
  if (!lost_.empty()) throw PeerLost(lost_);
}

// Aborting makes collectives that wait for the peer end, so that a host that waits for the device
// goes on.
void NcclSession::Lose(const std::string& why) {
  if (!lost_.empty()) return;
  lost_ = why;
  // All at once: freeing one waits for the device, where another one's kernel may wait for a peer.
  std::vector<std::thread> aborts;
  for (const Comm& comm : comms_) {
    if (comm.comm == nullptr) continue;
    aborts.emplace_back([this, &comm] {
      cudaSetDevice(options_.device);
      ncclCommAbort(comm.comm);
    });
  }
  for (std::thread& abort : aborts) abort.join();
}

void NcclSession::Look() {
  for (const Word& word : words_) {
    const uint32_t value = *static_cast<const volatile uint32_t*>(word.word);
    if (value != 0) return Lose(word.describe(value));
  }
  while (!pending_.empty()) {
    const cudaError_t state = cudaEventQuery(pending_.front().event);
    if (state == cudaErrorNotReady) break;
    if (state != cudaSuccess) {
      return Lose(absl::StrFormat("%s: %s", pending_.front().what, cudaGetErrorString(state)));
    }
    free_events_.push_back(pending_.front().event);
    pending_.pop_front();
    // The next one could not end before this one did.
    if (!pending_.empty()) pending_.front().since = steady_clock::now();
  }
  for (const Comm& comm : comms_) {
    ncclResult_t state = ncclSuccess;
    if (comm.comm == nullptr || ncclCommGetAsyncError(comm.comm, &state) != ncclSuccess) continue;
    if (state != ncclSuccess && state != ncclInProgress) {
      return Lose(absl::StrFormat("%s: %s", comm.name, ncclGetErrorString(state)));
    }
  }
  if (pending_.empty()) return;
  const auto waited = steady_clock::now() - pending_.front().since;
  if (waited > options_.time_limit) {
    Lose(absl::StrFormat("%s has not finished for %.0f s: a peer is gone or stuck",
                         pending_.front().what,
                         Seconds(std::chrono::duration_cast<std::chrono::milliseconds>(waited))));
  }
}

void NcclSession::WatchLoop() {
  cudaSetDevice(options_.device);
  // Looking at an event must not spoil a graph that another thread captures.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaThreadExchangeStreamCaptureMode(&mode);
  std::unique_lock lock(mutex_);
  while (!stopping_.wait_for(lock, kLookEvery, [this] { return stop_; })) {
    if (lost_.empty()) Look();
  }
}

void NcclSession::Watch(const uint32_t* word, std::function<std::string(uint32_t)> describe) {
  std::lock_guard lock(mutex_);
  words_.push_back({word, std::move(describe)});
}

void NcclSession::Unwatch(const uint32_t* word) {
  std::lock_guard lock(mutex_);
  words_.erase(std::remove_if(words_.begin(), words_.end(),
                              [&](const Word& known) { return known.word == word; }),
               words_.end());
}

}  // namespace switchyard::trainer
