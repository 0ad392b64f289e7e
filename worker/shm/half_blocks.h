// Between f16 and f32, many elements at a time.
#ifndef SHARDPLANE_WORKER_SHM_HALF_BLOCKS_H_
#define SHARDPLANE_WORKER_SHM_HALF_BLOCKS_H_

#include <cstdint>

#include "c10/util/Half.h"

namespace shardplane {

// By the processor's instructions where it has them; rounded to the nearest,
// ties to even, as c10::Half does.
void HalvesToFloats(float* to, const c10::Half* from, int64_t elements);
void FloatsToHalves(c10::Half* to, const float* from, int64_t elements);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_HALF_BLOCKS_H_
