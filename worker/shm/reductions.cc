#include "worker/shm/reductions.h"

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "c10/util/BFloat16.h"
#include "c10/util/Float8_e4m3fn.h"
#include "c10/util/Float8_e4m3fnuz.h"
#include "c10/util/Float8_e5m2.h"
#include "c10/util/Float8_e5m2fnuz.h"
#include "c10/util/Half.h"
#include "c10/util/complex.h"
#include "common/errors.h"
#include "worker/shm/half_blocks.h"

namespace shardplane {
namespace {

using Function = decltype(ShmReducer::function);

// Elements that are reduced at a time where it takes a buffer: it stays in the
// first cache.
constexpr int64_t kBlock = 1024;

template <typename T>
constexpr bool kIsReducedFloat = sizeof(T) <= 2 && !std::is_integral_v<T>;

// What is computed with.
template <typename T>
using Computed = std::conditional_t<kIsReducedFloat<T>, float, T>;

// Integers wrap: they are computed as unsigned ones, of which small ones would
// be promoted to int.
template <typename T, bool = std::is_integral_v<T>>
struct Wrapping {
  using Type = T;
};
template <typename T>
struct Wrapping<T, true> {
  using Type =
      std::conditional_t<(sizeof(T) > sizeof(uint32_t)), uint64_t, uint32_t>;
};
template <typename T>
auto Wrap(T value) {
  return static_cast<typename Wrapping<T>::Type>(value);
}

struct Sum {
  template <typename T>
  static T Of(T a, T b) {
    return static_cast<T>(Wrap(a) + Wrap(b));
  }
};
struct Product {
  template <typename T>
  static T Of(T a, T b) {
    return static_cast<T>(Wrap(a) * Wrap(b));
  }
  template <typename T>
  static c10::complex<T> Of(c10::complex<T> a, c10::complex<T> b) {
    return {a.real() * b.real() - a.imag() * b.imag(),
            a.real() * b.imag() + a.imag() * b.real()};
  }
};
// The second of equal ones: so do vectors, and -0 equals 0.
struct Min {
  template <typename T>
  static T Of(T a, T b) {
    return a < b || a != a ? a : b;
  }
};
struct Max {
  template <typename T>
  static T Of(T a, T b) {
    return a > b || a != a ? a : b;
  }
};
struct Band {
  template <typename T>
  static T Of(T a, T b) {
    return static_cast<T>(a & b);
  }
};
struct Bor {
  template <typename T>
  static T Of(T a, T b) {
    return static_cast<T>(a | b);
  }
};
struct Bxor {
  template <typename T>
  static T Of(T a, T b) {
    return static_cast<T>(a ^ b);
  }
};

template <typename T>
const T* As(const std::byte* data) {
  return reinterpret_cast<const T*>(data);
}

// Whole buffers of a few ranks, in one pass. The compiler may take it that
// only the same element of `out` and an input is one and the same.
template <typename T, typename Op, int kCount>
void InOnePass(T* out, const std::byte* const* in, int64_t elements) {
  const T* a = As<T>(in[0]);
  const T* b = As<T>(in[1]);
  const T* c = As<T>(in[kCount > 2 ? 2 : 0]);
  const T* d = As<T>(in[kCount > 3 ? 3 : 0]);
#pragma GCC ivdep
  for (int64_t i = 0; i < elements; ++i) {
    T value = Op::Of(a[i], b[i]);
    if constexpr (kCount > 2) value = Op::Of(value, c[i]);
    if constexpr (kCount > 3) value = Op::Of(value, d[i]);
    out[i] = value;
  }
}

template <typename T>
void Load(Computed<T>* block, const T* data, int64_t elements) {
  if constexpr (std::is_same_v<T, c10::Half>) {
    HalvesToFloats(block, data, elements);
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < elements; ++i)
      block[i] = static_cast<Computed<T>>(data[i]);
  }
}

template <typename T>
void Store(T* data, const Computed<T>* block, int64_t elements) {
  if constexpr (std::is_same_v<T, c10::Half>) {
    FloatsToHalves(data, block, elements);
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < elements; ++i) data[i] = static_cast<T>(block[i]);
  }
}

enum class Scale { kNone, kByCount };

// Any number of ranks, and types that are not computed with themselves.
template <typename T, typename Op, Scale kScale>
void ByBlocks(T* out, const std::byte* const* in, int count, int64_t elements) {
  using Value = Computed<T>;
  alignas(64) Value sum[kBlock];
  alignas(64) Value next[kBlock];
  for (int64_t begin = 0; begin < elements; begin += kBlock) {
    const int64_t length = std::min(kBlock, elements - begin);
    Load(sum, As<T>(in[0]) + begin, length);
    for (int rank = 1; rank < count; ++rank) {
      Load(next, As<T>(in[rank]) + begin, length);
      for (int64_t i = 0; i < length; ++i) sum[i] = Op::Of(sum[i], next[i]);
    }
    if constexpr (kScale == Scale::kByCount) {
      for (int64_t i = 0; i < length; ++i) sum[i] /= static_cast<float>(count);
    }
    Store(out + begin, sum, length);
  }
}

template <typename T, typename Op, Scale kScale = Scale::kNone>
void Reduce(std::byte* out, const std::byte* const* in, int count,
            int64_t elements) {
  T* const to = reinterpret_cast<T*>(out);
  if constexpr (!kIsReducedFloat<T> && kScale == Scale::kNone) {
    switch (count) {
      case 2:
        return InOnePass<T, Op, 2>(to, in, elements);
      case 3:
        return InOnePass<T, Op, 3>(to, in, elements);
      case 4:
        return InOnePass<T, Op, 4>(to, in, elements);
    }
  }
  ByBlocks<T, Op, kScale>(to, in, count, elements);
}

// nullptr: there is none.
template <typename T>
Function OfInteger(ShmReduction reduction) {
  switch (reduction) {
    case ShmReduction::kSum:
      return Reduce<T, Sum>;
    case ShmReduction::kAvg:
      return nullptr;
    case ShmReduction::kProduct:
      return Reduce<T, Product>;
    case ShmReduction::kMin:
      return Reduce<T, Min>;
    case ShmReduction::kMax:
      return Reduce<T, Max>;
    case ShmReduction::kBand:
      return Reduce<T, Band>;
    case ShmReduction::kBor:
      return Reduce<T, Bor>;
    case ShmReduction::kBxor:
      return Reduce<T, Bxor>;
  }
  return nullptr;
}

// Bytes that are 0 or 1.
Function OfBool(ShmReduction reduction) {
  switch (reduction) {
    case ShmReduction::kSum:
    case ShmReduction::kMax:
      return Reduce<uint8_t, Bor>;
    case ShmReduction::kProduct:
    case ShmReduction::kMin:
      return Reduce<uint8_t, Band>;
    default:
      return OfInteger<uint8_t>(reduction);
  }
}

template <typename T>
Function OfFloat(ShmReduction reduction) {
  switch (reduction) {
    case ShmReduction::kSum:
      return Reduce<T, Sum>;
    case ShmReduction::kAvg:
      return Reduce<T, Sum, Scale::kByCount>;
    case ShmReduction::kProduct:
      return Reduce<T, Product>;
    case ShmReduction::kMin:
      return Reduce<T, Min>;
    case ShmReduction::kMax:
      return Reduce<T, Max>;
    default:
      return nullptr;
  }
}

template <typename T>
Function OfComplex(ShmReduction reduction) {
  switch (reduction) {
    case ShmReduction::kSum:
      return Reduce<c10::complex<T>, Sum>;
    case ShmReduction::kAvg:
      return Reduce<c10::complex<T>, Sum, Scale::kByCount>;
    case ShmReduction::kProduct:
      return Reduce<c10::complex<T>, Product>;
    default:
      return nullptr;
  }
}

struct Row {
  c10::ScalarType type;
  Function (*function)(ShmReduction);
};
constexpr Row kRows[] = {
    {c10::ScalarType::Bool, OfBool},
    {c10::ScalarType::Byte, OfInteger<uint8_t>},
    {c10::ScalarType::Char, OfInteger<int8_t>},
    {c10::ScalarType::Short, OfInteger<int16_t>},
    {c10::ScalarType::Int, OfInteger<int32_t>},
    {c10::ScalarType::Long, OfInteger<int64_t>},
    {c10::ScalarType::UInt16, OfInteger<uint16_t>},
    {c10::ScalarType::UInt32, OfInteger<uint32_t>},
    {c10::ScalarType::UInt64, OfInteger<uint64_t>},
    {c10::ScalarType::Half, OfFloat<c10::Half>},
    {c10::ScalarType::BFloat16, OfFloat<c10::BFloat16>},
    {c10::ScalarType::Float, OfFloat<float>},
    {c10::ScalarType::Double, OfFloat<double>},
    {c10::ScalarType::Float8_e5m2, OfFloat<c10::Float8_e5m2>},
    {c10::ScalarType::Float8_e4m3fn, OfFloat<c10::Float8_e4m3fn>},
    {c10::ScalarType::Float8_e5m2fnuz, OfFloat<c10::Float8_e5m2fnuz>},
    {c10::ScalarType::Float8_e4m3fnuz, OfFloat<c10::Float8_e4m3fnuz>},
    {c10::ScalarType::ComplexFloat, OfComplex<float>},
    {c10::ScalarType::ComplexDouble, OfComplex<double>},
};

constexpr const char* kNames[] = {"sum", "avg",  "product", "min",
                                  "max", "band", "bor",     "bxor"};

}  // namespace

absl::StatusOr<ShmReducer> ReducerOf(c10::ScalarType type,
                                     ShmReduction reduction) {
  for (const Row& row : kRows) {
    if (row.type != type) continue;
    const Function function = row.function(reduction);
    if (function == nullptr) break;
    return ShmReducer{
        .function = function,
        .element_bytes = static_cast<int64_t>(c10::elementSize(type)),
        .id = static_cast<uint32_t>(type) << 8 |
              static_cast<uint32_t>(reduction)};
  }
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("shared memory: expected a reduction that the element type "
                   "has, got: ",
                   kNames[static_cast<int>(reduction)], " of ",
                   c10::toString(type)),
      {.reason = "NO_SUCH_REDUCTION", .metadata = {}});
}

}  // namespace shardplane
