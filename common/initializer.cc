#include "common/initializer.h"

#include <array>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/errors.h"
#include "common/float16.h"
#include "common/philox.h"

namespace shardplane {
namespace {

uint64_t Fnv1a(absl::string_view text) {
  uint64_t hash = 14695981039346656037ull;
  for (const unsigned char c : text) hash = (hash ^ c) * 1099511628211ull;
  return hash;
}

// In [0, 1): 53 bits of the two words.
double ToUnit(uint32_t low, uint32_t high) {
  const uint64_t bits = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// The values of one parameter, by global index.
class Values {
 public:
  Values(const Initializer& initializer, uint64_t seed, absl::string_view fqn,
         const TensorType& type)
      : initializer_(initializer), seed_(seed), stream_(Fnv1a(fqn)) {
    if (!initializer.zero_row.has_value()) return;
    const int64_t row = NumElements(absl::MakeConstSpan(type.shape).subspan(1));
    zero_begin_ = *initializer.zero_row * row;
    zero_end_ = zero_begin_ + row;
  }

  double At(int64_t index) const {
    if (zero_begin_ <= index && index < zero_end_) return 0;
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
      case Initializer::Kind::kFiles:
        break;  // Check refuses it
    }
    return 0;
  }

 private:
  using Words = std::array<uint32_t, 4>;

  Words Random(uint64_t index) const {
    return Philox(
        {LowWord(index), HighWord(index), LowWord(stream_), HighWord(stream_)},
        {LowWord(seed_), HighWord(seed_)});
  }

  static double First(const Words& words) { return ToUnit(words[0], words[1]); }

  static double Normal(const Words& words) {
    const double radius = std::sqrt(-2 * std::log1p(-First(words)));
    return radius * std::cos(2 * std::numbers::pi * ToUnit(words[2], words[3]));
  }

  const Initializer& initializer_;
  const uint64_t seed_;
  const uint64_t stream_;
  int64_t zero_begin_ = 0;  // of the elements that are zero
  int64_t zero_end_ = 0;
};

template <typename T>
void Append(T value, std::string* out) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

template <typename T>
void AppendAs(double value, std::string* out) {
  Append(static_cast<T>(value), out);  // complex: without imaginary part
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
      nullptr,
      AppendAs<float>,
      AppendAs<double>,
      AppendHalf,
      AppendBFloat16,
      AppendAs<int64_t>,
      AppendAs<int32_t>,
      AppendAs<int16_t>,
      AppendAs<int8_t>,
      AppendAs<uint8_t>,
      AppendAs<uint8_t>,
      AppendAs<std::complex<float>>,
      AppendAs<std::complex<double>>,
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
                   const TensorType& type, absl::Span<const Stretches> part) {
  if (initializer.kind == Initializer::Kind::kFiles) {
    return Bad(fqn, "expected values that can be made",
               absl::StrCat("the files ", initializer.path));
  }
  const bool random = initializer.kind == Initializer::Kind::kUniform ||
                      initializer.kind == Initializer::Kind::kNormal;
  if (random && !IsFloatingPoint(type.dtype)) {
    return Bad(fqn, "random initial values need a floating-point type",
               ToString(type));
  }
  if (const std::optional<int64_t> row = initializer.zero_row;
      row.has_value() &&
      (*row < 0 || type.shape.empty() || *row >= type.shape[0])) {
    return Bad(fqn,
               absl::StrCat("row ", *row,
                            ", which is to be zero, must be "
                            "one of the tensor"),
               ToString(type));
  }
  bool inside = part.size() == type.shape.size();
  for (size_t i = 0; inside && i < part.size(); ++i) {
    for (const Extent& stretch : part[i]) {
      inside = inside && stretch.offset >= 0 && stretch.size >= 0 &&
               stretch.offset + stretch.size <= type.shape[i];
    }
  }
  if (inside) return absl::OkStatus();
  return Bad(fqn, "a part must lie inside the tensor", ToString(type));
}

// Appends the values of dims from `dim` on, below the global row `row`.
void AppendPart(const Values& values, const TensorType& type,
                absl::Span<const Stretches> part, size_t dim, int64_t row,
                AppendFunction append, std::string* out) {
  if (dim == part.size()) {
    append(values.At(row), out);
    return;
  }
  for (const Extent& stretch : part[dim]) {
    for (int64_t i = stretch.offset; i < stretch.offset + stretch.size; ++i) {
      AppendPart(values, type, part, dim + 1, row * type.shape[dim] + i, append,
                 out);
    }
  }
}

}  // namespace

absl::StatusOr<std::string> InitialValues(const Initializer& initializer,
                                          uint64_t seed, absl::string_view fqn,
                                          const TensorType& type,
                                          absl::Span<const Stretches> part) {
  SP_RETURN_IF_ERROR(Check(initializer, fqn, type, part));
  int64_t count = 1;
  for (const Stretches& dim : part) count *= SizeOf(dim);
  std::string bytes;
  bytes.reserve(count * ByteSize(type.dtype));
  AppendPart(Values(initializer, seed, fqn, type), type, part, 0, 0,
             AppendFunctionOf(type.dtype), &bytes);
  return bytes;
}

}  // namespace shardplane
