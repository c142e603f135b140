// A block of memory, allocated once, from which tensors are handed out like from a stack.
//
// A step runs without allocation: a scope takes what it needs and gives it back when it ends. The
// high-water mark says how much of the planned size was needed. Asking for more than there is
// throws.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace switchyard::trainer {

class Arena {
 public:
  // `name` appears in errors. `bytes` is rounded up to kAlignment.
  Arena(std::string name, int64_t bytes, at::Device device);
  Arena(Arena&&) = default;
  Arena& operator=(Arena&&) = default;

  // An uninitialised contiguous tensor. Throws c10::Error when the arena is full.
  at::Tensor Take(at::IntArrayRef sizes, at::ScalarType dtype);
  void Reset() { used_ = 0; }

  int64_t bytes() const { return bytes_; }
  int64_t used() const { return used_; }
  int64_t high_water() const { return high_water_; }

  // Of every tensor; common/model/rank_memory.cc counts with the same.
  static constexpr int64_t kAlignment = 64;

 private:
  friend class ArenaScope;
  std::string name_;
  int64_t bytes_;
  int64_t used_ = 0;
  int64_t high_water_ = 0;
  at::Tensor storage_;  // uint8 [bytes]
};

// Gives back, at its end, everything taken from `arena` since its start.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
  ~ArenaScope() { arena_.used_ = mark_; }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  int64_t mark_;
};

}  // namespace switchyard::trainer
