// Between f16 or bf16 and f32, many elements at a time.
#ifndef SHARDPLANE_WORKER_SHM_SHORT_FLOATS_H_
#define SHARDPLANE_WORKER_SHM_SHORT_FLOATS_H_

#include <cstdint>

#include "c10/util/BFloat16.h"
#include "c10/util/Half.h"

namespace shardplane {

// By the processor's vectors where it has them. Rounded to the nearest, ties to
// even, as c10's types do it; NaN stays NaN.
void ToFloats(float* to, const c10::Half* from, int64_t elements);
void ToFloats(float* to, const c10::BFloat16* from, int64_t elements);
void FromFloats(c10::Half* to, const float* from, int64_t elements);
void FromFloats(c10::BFloat16* to, const float* from, int64_t elements);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_SHORT_FLOATS_H_
