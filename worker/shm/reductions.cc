#include "worker/shm/reductions.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
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
#include "worker/shm/short_floats.h"

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

// A few inputs in one pass. The compiler may take it that only the same element
// of `out` and of an input is one and the same.
template <typename T, typename Op, int kCount>
void OnePass(T* out, const T* const* in, int64_t elements) {
  const T* const a = in[0];
  const T* const b = in[1];
  const T* const c = in[kCount > 2 ? 2 : 0];
  const T* const d = in[kCount > 3 ? 3 : 0];
#pragma GCC ivdep
  for (int64_t i = 0; i < elements; ++i) {
    T value = Op::Of(a[i], b[i]);
    if constexpr (kCount > 2) value = Op::Of(value, c[i]);
    if constexpr (kCount > 3) value = Op::Of(value, d[i]);
    out[i] = value;
  }
}

constexpr int kMostInOnePass = 4;

template <typename T, typename Op>
void Pass(T* out, const T* const* in, int count, int64_t elements) {
  switch (count) {
    case 1:
      if (out != in[0]) std::memcpy(out, in[0], elements * sizeof(T));
      return;
    case 2:
      return OnePass<T, Op, 2>(out, in, elements);
    case 3:
      return OnePass<T, Op, 3>(out, in, elements);
    case 4:
      return OnePass<T, Op, 4>(out, in, elements);
  }
}

// Pointers to what the inputs have from `begin` on.
template <typename T>
void PiecesAt(const T** pieces, const std::byte* const* in, int count,
              int64_t begin) {
  for (int i = 0; i < count; ++i)
    pieces[i] = reinterpret_cast<const T*>(in[i]) + begin;
}

// One block of any number of inputs.
template <typename T, typename Op>
void SumUp(T* sum, const std::byte* const* in, int count, int64_t begin,
           int64_t elements) {
  const T* pieces[kMostInOnePass];
  int done = std::min(count, kMostInOnePass);
  PiecesAt(pieces, in, done, begin);
  Pass<T, Op>(sum, pieces, done, elements);
  pieces[0] = sum;
  while (done < count) {
    const int more = std::min(count - done, kMostInOnePass - 1);
    PiecesAt(pieces + 1, in + done, more, begin);
    Pass<T, Op>(sum, pieces, 1 + more, elements);
    done += more;
  }
}

template <typename T>
constexpr bool kHasLoops =
    std::is_same_v<T, c10::Half> || std::is_same_v<T, c10::BFloat16>;

template <typename T>
void Load(float* block, const std::byte* in, int64_t begin, int64_t elements) {
  const T* const data = reinterpret_cast<const T*>(in) + begin;
  if constexpr (kHasLoops<T>) {
    ToFloats(block, data, elements);
  } else {
    for (int64_t i = 0; i < elements; ++i)
      block[i] = static_cast<float>(data[i]);
  }
}

template <typename T>
void Store(T* out, const float* block, int64_t elements) {
  if constexpr (kHasLoops<T>) {
    FromFloats(out, block, elements);
  } else {
    for (int64_t i = 0; i < elements; ++i) out[i] = static_cast<T>(block[i]);
  }
}

// The same for types that are computed as floats.
template <typename T, typename Op>
void SumUpAsFloats(float* sum, const std::byte* const* in, int count,
                   int64_t begin, int64_t elements) {
  alignas(64) float next[kBlock];
  const float* const pieces[] = {sum, next};
  Load<T>(sum, in[0], begin, elements);
  for (int i = 1; i < count; ++i) {
    Load<T>(next, in[i], begin, elements);
    OnePass<float, Op, 2>(sum, pieces, elements);
  }
}

enum class Scale { kNone, kByCount };

// By way of a buffer: `out` may be any of `in`.
template <typename T, typename Op, Scale kScale>
void ByBlocks(T* out, const std::byte* const* in, int count, int64_t elements) {
  alignas(64) Computed<T> sum[kBlock];
  for (int64_t begin = 0; begin < elements; begin += kBlock) {
    const int64_t length = std::min(kBlock, elements - begin);
    if constexpr (kIsReducedFloat<T>) {
      SumUpAsFloats<T, Op>(sum, in, count, begin, length);
    } else {
      SumUp<T, Op>(sum, in, count, begin, length);
    }
    if constexpr (kScale == Scale::kByCount) {
      for (int64_t i = 0; i < length; ++i) sum[i] /= static_cast<float>(count);
    }
    if constexpr (kIsReducedFloat<T>) {
      Store(out + begin, sum, length);
    } else {
      std::memcpy(out + begin, sum, length * sizeof(T));
    }
  }
}

template <typename T, typename Op, Scale kScale = Scale::kNone>
void Reduce(std::byte* out, const std::byte* const* in, int count,
            int64_t elements) {
  T* const to = reinterpret_cast<T*>(out);
  if constexpr (!kIsReducedFloat<T> && kScale == Scale::kNone) {
    if (count <= kMostInOnePass) {
      const T* pieces[kMostInOnePass];
      PiecesAt(pieces, in, count, /*begin=*/0);
      return Pass<T, Op>(to, pieces, count, elements);
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
