// Philox with seven rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
// a counter and a key give random bits, so a draw depends on what it is for, never on which thread
// makes it. For four words seven rounds are the fewest that pass BigCrush there; rounding needs no
// more.
#pragma once

#include <cstdint>

namespace switchyard::kernels {

struct PhiloxWords {
  uint32_t word[4];
};

#ifdef __CUDACC__
__host__ __device__
#endif
    inline PhiloxWords
    Philox4x32(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 7; ++round) {
    const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * counter.word[0];
    const uint64_t b = static_cast<uint64_t>(0xCD9E8D57u) * counter.word[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Two words from a counter of two.
#ifdef __CUDACC__
__host__ __device__
#endif
    inline void
    Philox2x32(uint32_t& word0, uint32_t& word1, uint32_t key) {
  for (int round = 0; round < 7; ++round) {
    const uint64_t product = static_cast<uint64_t>(0xD256D193u) * word0;
    word0 = static_cast<uint32_t>(product >> 32) ^ key ^ word1;
    word1 = static_cast<uint32_t>(product);
    key += 0x9E3779B9u;
  }
}

}  // namespace switchyard::kernels
