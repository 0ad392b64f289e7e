// Random words by counter: no state, so that any element of any tensor can be
// drawn anywhere.
#ifndef SHARDPLANE_COMMON_PHILOX_H_
#define SHARDPLANE_COMMON_PHILOX_H_

#include <array>
#include <cstdint>

namespace shardplane {

inline constexpr uint32_t LowWord(uint64_t words) {
  return static_cast<uint32_t>(words);
}
inline constexpr uint32_t HighWord(uint64_t words) {
  return static_cast<uint32_t>(words >> 32);
}

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3").
// With one key, different counters give different words: it is a permutation.
inline std::array<uint32_t, 4> Philox(const std::array<uint32_t, 4>& counter,
                                      const std::array<uint32_t, 2>& key) {
  std::array<uint32_t, 4> c = counter;
  std::array<uint32_t, 2> k = key;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xd2511f53} * c[0];
    const uint64_t product1 = uint64_t{0xcd9e8d57} * c[2];
    c = {HighWord(product1) ^ c[1] ^ k[0], LowWord(product1),
         HighWord(product0) ^ c[3] ^ k[1], LowWord(product0)};
    k = {k[0] + 0x9e3779b9, k[1] + 0xbb67ae85};
  }
  return c;
}

// Several counters side by side, word by word: what vector instructions like.
template <int kLanes>
struct PhiloxLanes {
  uint32_t word[4][kLanes];

  // Each lane's counter becomes what Philox makes of it.
  void Run(const std::array<uint32_t, 2>& key) {
    uint32_t k0 = key[0];
    uint32_t k1 = key[1];
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < kLanes; ++i) {
        const uint64_t product0 = uint64_t{0xd2511f53} * word[0][i];
        const uint64_t product1 = uint64_t{0xcd9e8d57} * word[2][i];
        word[0][i] = HighWord(product1) ^ word[1][i] ^ k0;
        word[1][i] = LowWord(product1);
        word[2][i] = HighWord(product0) ^ word[3][i] ^ k1;
        word[3][i] = LowWord(product0);
      }
      k0 += 0x9e3779b9;
      k1 += 0xbb67ae85;
    }
  }
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PHILOX_H_
