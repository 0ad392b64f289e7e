#include "common/initializer.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/errors.h"
#include "common/float16.h"

namespace shardplane {
namespace {

uint64_t Fnv1a(absl::string_view text) {
  uint64_t hash = 14695981039346656037ull;
  for (const unsigned char c : text) hash = (hash ^ c) * 1099511628211ull;
  return hash;
}

uint32_t Low(uint64_t word) { return static_cast<uint32_t>(word); }
uint32_t High(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

// In [0, 1): 53 bits of the two words.
double ToUnit(uint32_t low, uint32_t high) {
  const uint64_t bits = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// The values of one parameter, by global index.
class Values {
 public:
  Values(const Initializer& initializer, uint64_t seed, absl::string_view fqn)
      : initializer_(initializer), seed_(seed), stream_(Fnv1a(fqn)) {}

  double At(int64_t index) const {
    switch (initializer_.kind) {
      case Initializer::Kind::kZeros:
        return 0;
      case Initializer::Kind::kOnes:
        return 1;
      case Initializer::Kind::kUniform:
        return initializer_.a +
               (initializer_.b - initializer_.a) * First(Random(index));
      case Initializer::Kind::kNormal:
        return initializer_.a + initializer_.b * Normal(Random(index));
    }
    return 0;
  }

 private:
  using Words = std::array<uint32_t, 4>;

  Words Random(uint64_t index) const {
    return Philox({Low(index), High(index), Low(stream_), High(stream_)},
                  {Low(seed_), High(seed_)});
  }

  static double First(const Words& words) { return ToUnit(words[0], words[1]); }

  static double Normal(const Words& words) {
    const double radius = std::sqrt(-2 * std::log1p(-First(words)));
    return radius * std::cos(2 * std::numbers::pi * ToUnit(words[2], words[3]));
  }

  const Initializer& initializer_;
  const uint64_t seed_;
  const uint64_t stream_;
};

template <typename T>
void Append(T value, std::string* out) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

template <typename T>
void AppendAs(double value, std::string* out) {
  Append(static_cast<T>(value), out);
}
void AppendHalf(double value, std::string* out) {
  Append(FloatToHalf(static_cast<float>(value)), out);
}
void AppendBFloat16(double value, std::string* out) {
  Append(FloatToBFloat16(static_cast<float>(value)), out);
}

using AppendFunction = void (*)(double, std::string*);

AppendFunction AppendFunctionOf(DType dtype) {
  // By the enum's number; row 0 is no dtype.
  static constexpr AppendFunction kFunctions[] = {
      nullptr,          AppendAs<float>,   AppendAs<double>,  AppendHalf,
      AppendBFloat16,   AppendAs<int64_t>, AppendAs<int32_t>, AppendAs<int16_t>,
      AppendAs<int8_t>, AppendAs<uint8_t>, AppendAs<uint8_t>,
  };
  return kFunctions[static_cast<size_t>(dtype)];
}

absl::Status Bad(absl::string_view fqn, absl::string_view message,
                 absl::string_view got) {
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat("parameter \"", fqn, "\": ", message, "; got: ", got),
      {.reason = "INVALID_INITIALIZER",
       .metadata = {{"fqn", std::string(fqn)}}});
}

absl::Status Check(const Initializer& initializer, absl::string_view fqn,
                   const TensorType& type, absl::Span<const Extent> extents) {
  const bool random = initializer.kind == Initializer::Kind::kUniform ||
                      initializer.kind == Initializer::Kind::kNormal;
  if (random && !IsFloatingPoint(type.dtype)) {
    return Bad(fqn, "random initial values need a floating-point type",
               ToString(type));
  }
  bool inside = extents.size() == type.shape.size();
  for (size_t i = 0; inside && i < extents.size(); ++i) {
    inside = extents[i].offset >= 0 && extents[i].size >= 0 &&
             extents[i].offset + extents[i].size <= type.shape[i];
  }
  if (inside) return absl::OkStatus();
  return Bad(fqn, "a part must lie inside the tensor", ToString(type));
}

// Appends the values of dims from `dim` on, below the global row `row`.
void AppendPart(const Values& values, const TensorType& type,
                absl::Span<const Extent> extents, size_t dim, int64_t row,
                AppendFunction append, std::string* out) {
  if (dim == extents.size()) {
    append(values.At(row), out);
    return;
  }
  const Extent& extent = extents[dim];
  for (int64_t i = extent.offset; i < extent.offset + extent.size; ++i) {
    AppendPart(values, type, extents, dim + 1, row * type.shape[dim] + i,
               append, out);
  }
}

}  // namespace

std::array<uint32_t, 4> Philox(const std::array<uint32_t, 4>& counter,
                               const std::array<uint32_t, 2>& key) {
  std::array<uint32_t, 4> c = counter;
  std::array<uint32_t, 2> k = key;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xd2511f53} * c[0];
    const uint64_t product1 = uint64_t{0xcd9e8d57} * c[2];
    c = {High(product1) ^ c[1] ^ k[0], Low(product1),
         High(product0) ^ c[3] ^ k[1], Low(product0)};
    k = {k[0] + 0x9e3779b9, k[1] + 0xbb67ae85};
  }
  return c;
}

absl::StatusOr<std::string> InitialValues(const Initializer& initializer,
                                          uint64_t seed, absl::string_view fqn,
                                          const TensorType& type,
                                          absl::Span<const Extent> extents) {
  SP_RETURN_IF_ERROR(Check(initializer, fqn, type, extents));
  int64_t count = 1;
  for (const Extent& extent : extents) count *= extent.size;
  std::string bytes;
  bytes.reserve(count * ByteSize(type.dtype));
  AppendPart(Values(initializer, seed, fqn), type, extents, 0, 0,
             AppendFunctionOf(type.dtype), &bytes);
  return bytes;
}

}  // namespace shardplane
