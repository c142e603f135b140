// Work on files by a few threads: one alone reaches neither a fast disk's rate nor that of copies
// to a GPU.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace switchyard::trainer {

// Of one rank; no more than it has cores.
inline int FileThreads() {
  constexpr unsigned kMost = 4;
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, kMost));
}

// body(worker, index) once for every index below `count`, in the order in which workers become
// free; `worker` is below `threads`. Returns the first error, or throws what the body threw first;
// after either no further index begins.
template <typename Body>
absl::Status ForEachInParallel(size_t count, int threads, const Body& body) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  absl::Status first;
  std::exception_ptr thrown;
  const auto work = [&](int worker) {
    for (size_t i = next++; i < count; i = next++) {
      absl::Status status;
      std::exception_ptr exception;
      try {
        status = body(worker, i);
      } catch (...) {
        exception = std::current_exception();
      }
      if (status.ok() && exception == nullptr) continue;
      next = count;
      const std::lock_guard<std::mutex> lock(mutex);
      if (first.ok()) first = std::move(status);
      if (thrown == nullptr) thrown = exception;
    }
  };
  std::vector<std::thread> others;
  for (int worker = 1; worker < threads; ++worker) others.emplace_back(work, worker);
  work(0);
  for (std::thread& thread : others) thread.join();
  if (thrown != nullptr) std::rethrow_exception(thrown);
  return first;
}

}  // namespace switchyard::trainer
