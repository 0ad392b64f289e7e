// What bodies.h is written in terms of: the threads of a block, in step. The
// same code runs as one thread of a GPU's block and as all threads of one, one
// after the other, on a CPU.
#ifndef SHARDPLANE_WORKER_KERNELS_LANES_H_
#define SHARDPLANE_WORKER_KERNELS_LANES_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "worker/kernels/kernels.h"

#ifdef __CUDACC__
#define SHARDPLANE_DEVICE __host__ __device__
#else
#include <vector>
#define SHARDPLANE_DEVICE
#endif

namespace shardplane {

struct Bf16 {
  uint16_t bits;
};

SHARDPLANE_DEVICE inline float ToFloat(float x) { return x; }

SHARDPLANE_DEVICE inline float ToFloat(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float result;
  memcpy(&result, &bits, sizeof(result));
  return result;
}

SHARDPLANE_DEVICE inline void Store(float x, float& out) { out = x; }

// To the nearest, ties to even.
SHARDPLANE_DEVICE inline void Store(float x, Bf16& out) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  bits += 0x7fffu + ((bits >> 16) & 1);
  out.bits = nan ? 0x7fc0 : static_cast<uint16_t>(bits >> 16);
#endif
}

template <typename T>
SHARDPLANE_DEVICE inline float Rounded(float x) {
  T rounded;
  Store(x, rounded);
  return ToFloat(rounded);
}

// N elements that one instruction loads.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

template <int N, typename T>
SHARDPLANE_DEVICE inline Pack<T, N> Load(const T* from) {
#ifdef __CUDA_ARCH__
  __builtin_assume(__isGlobal(from));  // also if it was read from memory
#endif
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

// A whole pack is one instruction, too; nvcc would store what it has computed
// in pieces, word by word.
template <typename T, int N>
SHARDPLANE_DEVICE inline void Store(const Pack<T, N>& pack, T* to) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(pack) == kPackBytes) {
    uint32_t words[4];
    memcpy(words, &pack, sizeof(words));
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(
                     __cvta_generic_to_global(to)),
                 "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
    return;
  }
#endif
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// e^x as precisely as results of T show it.
template <typename T>
SHARDPLANE_DEVICE inline float Exp(float x) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == sizeof(Bf16)) return __expf(x);
#endif
  return expf(x);
}

// x / y and x's root, likewise. y is less than 2^126.
template <typename T>
SHARDPLANE_DEVICE inline float Quotient(float x, float y) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == sizeof(Bf16)) return __fdividef(x, y);
#endif
  return x / y;
}

template <typename T>
SHARDPLANE_DEVICE inline float Root(float x) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == sizeof(Bf16)) {
    float root;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
  }
#endif
  return sqrtf(x);
}

template <typename T>
SHARDPLANE_DEVICE inline float Sigmoid(float x) {
  return Quotient<T>(1, 1 + Exp<T>(-x));
}

#ifdef __CUDACC__

// A GPU's block, seen from one of its threads.
class DeviceBlock {
 public:
  // What each lane has of its own: here this thread's.
  template <typename T>
  struct PerLane {
    __device__ explicit PerLane(const DeviceBlock&) {}
    __device__ T& operator[](int) { return value; }
    T value;
  };

  __device__ int64_t index() const { return blockIdx.x; }
  __device__ int64_t count() const { return gridDim.x; }

  // f(lane) of every lane.
  template <typename F>
  __device__ void Each(F f) const {
    f(static_cast<int>(threadIdx.x));
  }

  // The values of all lanes by `op`, in an order that is always the same; every
  // lane has it.
  template <typename Op>
  __device__ float Reduce(PerLane<float>& values, float none, Op op) const {
    __shared__ float warps[kLanes / 32];
    float value = values.value;
    for (int step = 16; step > 0; step /= 2) {
      value = op(value, __shfl_xor_sync(0xffffffffu, value, step));
    }
    __syncthreads();  // the ones before have been read
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = none;
    for (int warp = 0; warp < kLanes / 32; ++warp) {
      value = op(value, warps[warp]);
    }
    return value;
  }
};

#else

// All lanes of a block, one after the other.
class HostBlock {
 public:
  HostBlock(int64_t index, int64_t count) : index_(index), count_(count) {}

  template <typename T>
  struct PerLane {
    explicit PerLane(const HostBlock&) : values(kLanes) {}
    T& operator[](int lane) { return values[lane]; }
    std::vector<T> values;
  };

  int64_t index() const { return index_; }
  int64_t count() const { return count_; }

  template <typename F>
  void Each(F f) const {
    for (int lane = 0; lane < kLanes; ++lane) f(lane);
  }

  template <typename Op>
  float Reduce(PerLane<float>& values, float none, Op op) const {
    float result = none;
    for (const float value : values.values) result = op(result, value);
    return result;
  }

 private:
  int64_t index_;
  int64_t count_;
};

#endif

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_KERNELS_LANES_H_
