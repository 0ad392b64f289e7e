#include "worker/shm/short_floats.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace shardplane {
namespace {

// Each converts what it can of the first elements and says how many these were.
#if defined(__x86_64__)

#define SHARDPLANE_VECTORS __attribute__((target("avx2,f16c")))

bool HaveVectors() {
  static const bool have = __builtin_cpu_supports("avx2") != 0 &&
                           __builtin_cpu_supports("f16c") != 0;
  return have;
}

SHARDPLANE_VECTORS __m128i LoadEight(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

SHARDPLANE_VECTORS void StoreEight(void* to, __m128i values) {
  _mm_storeu_si128(static_cast<__m128i*>(to), values);
}

SHARDPLANE_VECTORS int64_t ByVectors(float* to, const c10::Half* from,
                                     int64_t elements) {
  int64_t i = 0;
  for (; i + 8 <= elements; i += 8)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(LoadEight(from + i)));
  return i;
}

SHARDPLANE_VECTORS int64_t ByVectors(float* to, const c10::BFloat16* from,
                                     int64_t elements) {
  int64_t i = 0;
  for (; i + 8 <= elements; i += 8) {
    // They are the upper halves of floats.
    const __m256i bits =
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(LoadEight(from + i)), 16);
    _mm256_storeu_ps(to + i, _mm256_castsi256_ps(bits));
  }
  return i;
}

SHARDPLANE_VECTORS int64_t ByVectors(c10::Half* to, const float* from,
                                     int64_t elements) {
  int64_t i = 0;
  for (; i + 8 <= elements; i += 8) {
    StoreEight(to + i, _mm256_cvtps_ph(_mm256_loadu_ps(from + i),
                                       _MM_FROUND_TO_NEAREST_INT));
  }
  return i;
}

SHARDPLANE_VECTORS int64_t ByVectors(c10::BFloat16* to, const float* from,
                                     int64_t elements) {
  int64_t i = 0;
  for (; i + 8 <= elements; i += 8) {
    const __m256 values = _mm256_loadu_ps(from + i);
    const __m256i bits = _mm256_castps_si256(values);
    // Just below half of what the upper half counts, and with an odd one half.
    const __m256i odd =
        _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(
        bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256 is_nan = _mm256_cmp_ps(values, values, _CMP_UNORD_Q);
    const __m256i upper = _mm256_srli_epi32(
        _mm256_castps_si256(_mm256_blendv_ps(
            _mm256_castsi256_ps(rounded),
            _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)), is_nan)),
        16);
    // Packing works in each half of the vector.
    const __m256i packed = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(upper, upper), /*0, 2, 0, 2=*/0x88);
    StoreEight(to + i, _mm256_castsi256_si128(packed));
  }
  return i;
}

#else

bool HaveVectors() { return false; }
template <typename To, typename From>
int64_t ByVectors(To*, const From*, int64_t) {
  return 0;
}

#endif

template <typename To, typename From>
void Convert(To* to, const From* from, int64_t elements) {
  int64_t i = HaveVectors() ? ByVectors(to, from, elements) : 0;
  for (; i < elements; ++i) to[i] = static_cast<To>(from[i]);
}

}  // namespace

void ToFloats(float* to, const c10::Half* from, int64_t elements) {
  Convert(to, from, elements);
}
void ToFloats(float* to, const c10::BFloat16* from, int64_t elements) {
  Convert(to, from, elements);
}
void FromFloats(c10::Half* to, const float* from, int64_t elements) {
  Convert(to, from, elements);
}
void FromFloats(c10::BFloat16* to, const float* from, int64_t elements) {
  Convert(to, from, elements);
}

}  // namespace shardplane
