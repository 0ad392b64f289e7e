#include "client/shardctl/input_values.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/shardctl/failure.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

template <typename T>
void AppendAs(double value, std::string* bytes) {
  const T element = static_cast<T>(value);
  bytes->append(reinterpret_cast<const char*>(&element), sizeof(element));
}

uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// To the nearest, ties to even.
void AppendBfloat16(double value, std::string* bytes) {
  const uint32_t bits = BitsOf(static_cast<float>(value));
  const auto half =
      static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
  bytes->append(reinterpret_cast<const char*>(&half), sizeof(half));
}

// The same. (clang 14 has no such type on this target.)
uint16_t HalfOf(double value) {
  constexpr double kTooLarge = 65520;  // halfway from the largest to the next
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::abs(value);
  if (std::isnan(value)) return 0x7E00;
  if (size >= kTooLarge) return sign | 0x7C00;
  if (size < 0x1p-14) {
    return static_cast<uint16_t>(sign + std::nearbyint(size * 0x1p24));
  }
  const int exponent = std::ilogb(size);
  // From 1024 to 2048: what is rounded up carries into the exponent.
  const double digits = std::nearbyint(std::ldexp(size, 10 - exponent));
  return static_cast<uint16_t>(sign + ((exponent + 14) << 10) + digits);
}

void AppendFloat16(double value, std::string* bytes) {
  const uint16_t half = HalfOf(value);
  bytes->append(reinterpret_cast<const char*>(&half), sizeof(half));
}

struct ElementType {
  v1::DType dtype;
  void (*append)(double, std::string*);
  bool is_float;
};
constexpr ElementType kElements[] = {
    {v1::DTYPE_FLOAT32, &AppendAs<float>, true},
    {v1::DTYPE_FLOAT64, &AppendAs<double>, true},
    {v1::DTYPE_FLOAT16, &AppendFloat16, true},
    {v1::DTYPE_BFLOAT16, &AppendBfloat16, true},
    {v1::DTYPE_INT64, &AppendAs<int64_t>, false},
    {v1::DTYPE_INT32, &AppendAs<int32_t>, false},
    {v1::DTYPE_INT16, &AppendAs<int16_t>, false},
    {v1::DTYPE_INT8, &AppendAs<int8_t>, false},
    {v1::DTYPE_UINT8, &AppendAs<uint8_t>, false},
    {v1::DTYPE_BOOL, &AppendAs<bool>, false},
};

absl::StatusOr<const ElementType*> ElementOf(const v1::TensorType& type) {
  for (const ElementType& row : kElements) {
    if (row.dtype == type.dtype()) return &row;
  }
  return UsageError(
      absl::StrCat("expected a real dtype, got: ", TypeText(type)),
      "complex inputs: the C++ or Python client");
}

int64_t CountOf(const v1::TensorType& type) {
  int64_t count = 1;
  for (const int64_t size : type.shape()) {
    count *= size;
  }
  return count;
}

absl::StatusOr<double> NumberOf(const Document& value,
                                const ElementType& element) {
  double number = 0;
  const std::string text =
      value.is_string() ? value.get<std::string>() : value.dump();
  if (text == "true" || text == "false") return text == "true" ? 1.0 : 0.0;
  if (!absl::SimpleAtod(text, &number) ||
      (!element.is_float && number != std::floor(number))) {
    return UsageError(absl::StrCat("expected ",
                                   element.is_float ? "a number" : "an integer",
                                   ", got: ", text));
  }
  return number;
}

absl::Status Fill(const Document& value, const v1::TensorType& type, int dim,
                  const ElementType& element, std::string* bytes) {
  if (dim == type.shape_size()) {
    const absl::StatusOr<double> number = NumberOf(value, element);
    if (!number.ok()) return number.status();
    element.append(*number, bytes);
    return absl::OkStatus();
  }
  if (!value.is_array() ||
      static_cast<int64_t>(value.size()) != type.shape(dim)) {
    return UsageError(absl::StrCat(
        "expected ", type.shape(dim), " elements along dim ", dim, " of ",
        TypeText(type),
        ", got: ", value.is_array() ? absl::StrCat(value.size()) : "no list"));
  }
  for (const Document& item : value) {
    if (absl::Status status = Fill(item, type, dim + 1, element, bytes);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

v1::Tensor Inline(const v1::TensorType& type, std::string bytes) {
  v1::Tensor tensor;
  *tensor.mutable_type() = type;
  tensor.set_inline_(std::move(bytes));
  return tensor;
}

// SplitMix64: each number from its place alone, the same on every machine.
uint64_t Mixed(uint64_t seed, uint64_t place) {
  uint64_t x = seed + (place + 1) * 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

absl::StatusOr<v1::Tensor> TensorOf(const v1::TensorType& type,
                                    const Document& values) {
  const absl::StatusOr<const ElementType*> element = ElementOf(type);
  if (!element.ok()) return element.status();
  std::string bytes;
  if (values.is_array() || type.shape_size() == 0) {
    absl::Status status = Fill(values, type, 0, **element, &bytes);
    if (!status.ok()) return status;
  } else {
    const absl::StatusOr<double> number = NumberOf(values, **element);
    if (!number.ok()) return number.status();
    for (int64_t i = 0; i < CountOf(type); ++i) {
      (*element)->append(*number, &bytes);
    }
  }
  return Inline(type, std::move(bytes));
}

absl::StatusOr<v1::Tensor> RandomTensor(const v1::TensorType& type,
                                        uint64_t seed, uint64_t index,
                                        int64_t below) {
  const absl::StatusOr<const ElementType*> element = ElementOf(type);
  if (!element.ok()) return element.status();
  const uint64_t own = Mixed(seed, index);
  const uint64_t limit =
      type.dtype() == v1::DTYPE_BOOL ? 2 : static_cast<uint64_t>(below);
  std::string bytes;
  for (int64_t i = 0; i < CountOf(type); ++i) {
    const uint64_t bits = Mixed(own, static_cast<uint64_t>(i));
    // 53 bits are all that a double has.
    const double unit = static_cast<double>(bits >> 11) * 0x1p-53;
    (*element)->append(
        (*element)->is_float ? 2 * unit - 1 : static_cast<double>(bits % limit),
        &bytes);
  }
  return Inline(type, std::move(bytes));
}

}  // namespace shardplane
