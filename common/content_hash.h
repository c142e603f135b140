// 64-bit XXH3 of bytes, for noticing damage to files (not against an adversary).
//
// Why XXH3: it runs at memory speed (a checkpoint of hundreds of gigabytes is hashed by its writers
// while they write), its value is fixed since 0.8, and Python has the same function
// (xxhash.xxh3_64). FNV and CRC-32 are ten times slower or too short.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace switchyard {

uint64_t ContentHash(const void* data, size_t size);

// The same, fed piece by piece.
class ContentHasher {
 public:
  ContentHasher();
  ~ContentHasher();
  ContentHasher(ContentHasher&&) noexcept;
  ContentHasher& operator=(ContentHasher&&) noexcept;

  void Add(const void* data, size_t size);
  uint64_t Digest() const;
  void Reset();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// 16 lower-case hexadecimal digits, as xxhash's hexdigest().
std::string HashText(uint64_t hash);

}  // namespace switchyard
