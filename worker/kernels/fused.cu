// The bodies as kernels of a GPU, named as driver_kernels.cc looks them up:
// swiglu_f32, swiglu_bf16, ..., rms_norm_bf16_4 (packs), ...
#include "worker/kernels/bodies.h"

namespace shardplane {

#define SHARDPLANE_ENTRY(name, Args, ...)                                      \
  extern "C" __global__ void __launch_bounds__(kLanes) name(const Args args) { \
    __VA_ARGS__(DeviceBlock(), args);                                          \
  }

#define SHARDPLANE_ENTRIES(name, Args, Body)      \
  SHARDPLANE_ENTRY(name##_f32, Args, Body<float>) \
  SHARDPLANE_ENTRY(name##_bf16, Args, Body<Bf16>)

#define SHARDPLANE_ROW_ENTRIES(name, Args, Body)       \
  SHARDPLANE_ENTRY(name##_f32_1, Args, Body<float, 1>) \
  SHARDPLANE_ENTRY(name##_f32_2, Args, Body<float, 2>) \
  SHARDPLANE_ENTRY(name##_f32_4, Args, Body<float, 4>) \
  SHARDPLANE_ENTRY(name##_f32_8, Args, Body<float, 8>) \
  SHARDPLANE_ENTRY(name##_bf16_1, Args, Body<Bf16, 1>) \
  SHARDPLANE_ENTRY(name##_bf16_2, Args, Body<Bf16, 2>) \
  SHARDPLANE_ENTRY(name##_bf16_4, Args, Body<Bf16, 4>) \
  SHARDPLANE_ENTRY(name##_bf16_8, Args, Body<Bf16, 8>)

SHARDPLANE_KERNELS(SHARDPLANE_ENTRIES)
SHARDPLANE_ROW_KERNELS(SHARDPLANE_ROW_ENTRIES)

}  // namespace shardplane
