#include "common/tensor_type.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/base/macros.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"

namespace shardplane {
namespace {

enum class Numbers { kOther, kReal, kComplex };

struct DTypeRow {
  const char* name;
  int64_t byte_size;
  Numbers numbers;
};

// By the enum's number; row 0 is no dtype.
constexpr DTypeRow kDTypes[] = {
    {"?", 0, Numbers::kOther},       {"f32", 4, Numbers::kReal},
    {"f64", 8, Numbers::kReal},      {"f16", 2, Numbers::kReal},
    {"bf16", 2, Numbers::kReal},     {"i64", 8, Numbers::kOther},
    {"i32", 4, Numbers::kOther},     {"i16", 2, Numbers::kOther},
    {"i8", 1, Numbers::kOther},      {"u8", 1, Numbers::kOther},
    {"bool", 1, Numbers::kOther},    {"c64", 8, Numbers::kComplex},
    {"c128", 16, Numbers::kComplex},
};

const DTypeRow& Row(DType dtype) {
  const size_t index = static_cast<size_t>(dtype);
  return kDTypes[index < ABSL_ARRAYSIZE(kDTypes) ? index : 0];
}

}  // namespace

int64_t ByteSize(DType dtype) { return Row(dtype).byte_size; }

bool IsFloatingPoint(DType dtype) {
  return Row(dtype).numbers == Numbers::kReal;
}

bool IsComplex(DType dtype) { return Row(dtype).numbers == Numbers::kComplex; }

bool CarriesGradient(DType dtype) {
  return IsFloatingPoint(dtype) || IsComplex(dtype);
}

std::string ToString(DType dtype) { return Row(dtype).name; }

DType RealOf(DType dtype) {
  if (dtype == DType::kComplex64) return DType::kFloat32;
  if (dtype == DType::kComplex128) return DType::kFloat64;
  return dtype;
}

DType ComplexOf(DType dtype) {
  if (IsComplex(dtype)) return dtype;
  return dtype == DType::kFloat64 ? DType::kComplex128 : DType::kComplex64;
}

int64_t NumElements(absl::Span<const int64_t> shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

std::string ShapeToString(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

int64_t ByteSize(const TensorType& type) {
  return NumElements(type.shape) * ByteSize(type.dtype);
}

std::string ToString(const TensorType& type) {
  return absl::StrCat(ToString(type.dtype), ShapeToString(type.shape));
}

}  // namespace shardplane
