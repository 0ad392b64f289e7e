#include "worker/shm/half_blocks.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace shardplane {
namespace {

#if defined(__x86_64__)

bool HaveInstructions() {
  static const bool have =
      __builtin_cpu_supports("avx") != 0 && __builtin_cpu_supports("f16c") != 0;
  return have;
}

// Eight at a time; how many that were.
__attribute__((target("avx,f16c"))) int64_t EightsToFloats(
    float* to, const c10::Half* from, int64_t elements) {
  int64_t done = 0;
  for (; done + 8 <= elements; done += 8) {
    const __m128i halves =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + done));
    _mm256_storeu_ps(to + done, _mm256_cvtph_ps(halves));
  }
  return done;
}

__attribute__((target("avx,f16c"))) int64_t EightsToHalves(c10::Half* to,
                                                           const float* from,
                                                           int64_t elements) {
  int64_t done = 0;
  for (; done + 8 <= elements; done += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(from + done),
                                           _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + done), halves);
  }
  return done;
}

#else

bool HaveInstructions() { return false; }
int64_t EightsToFloats(float*, const c10::Half*, int64_t) { return 0; }
int64_t EightsToHalves(c10::Half*, const float*, int64_t) { return 0; }

#endif

}  // namespace

void HalvesToFloats(float* to, const c10::Half* from, int64_t elements) {
  int64_t i = HaveInstructions() ? EightsToFloats(to, from, elements) : 0;
  for (; i < elements; ++i) to[i] = static_cast<float>(from[i]);
}

void FloatsToHalves(c10::Half* to, const float* from, int64_t elements) {
  int64_t i = HaveInstructions() ? EightsToHalves(to, from, elements) : 0;
  for (; i < elements; ++i) to[i] = static_cast<c10::Half>(from[i]);
}

}  // namespace shardplane
