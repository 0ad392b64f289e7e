// The two 16-bit floating-point formats, as bits.
#ifndef SHARDPLANE_COMMON_FLOAT16_H_
#define SHARDPLANE_COMMON_FLOAT16_H_

#include <cstdint>

namespace shardplane {

// IEEE binary16 (DType::kFloat16). To bits: rounds to nearest, ties to even;
// 65520 and beyond become infinite.
float HalfToFloat(uint16_t bits);
uint16_t FloatToHalf(float value);

// The upper half of a float (DType::kBFloat16), rounded likewise.
float BFloat16ToFloat(uint16_t bits);
uint16_t FloatToBFloat16(float value);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_FLOAT16_H_
