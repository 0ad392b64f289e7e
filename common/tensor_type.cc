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

struct DTypeRow {
  const char* name;
  int64_t byte_size;
  bool floating_point;
};

// By the enum's number; row 0 is no dtype.
constexpr DTypeRow kDTypes[] = {
    {"?", 0, false},   {"f32", 4, true},  {"f64", 8, true},   {"f16", 2, true},
    {"bf16", 2, true}, {"i64", 8, false}, {"i32", 4, false},  {"i16", 2, false},
    {"i8", 1, false},  {"u8", 1, false},  {"bool", 1, false},
};

const DTypeRow& Row(DType dtype) {
  const size_t index = static_cast<size_t>(dtype);
  return kDTypes[index < ABSL_ARRAYSIZE(kDTypes) ? index : 0];
}

}  // namespace

int64_t ByteSize(DType dtype) { return Row(dtype).byte_size; }

bool IsFloatingPoint(DType dtype) { return Row(dtype).floating_point; }

std::string ToString(DType dtype) { return Row(dtype).name; }

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
