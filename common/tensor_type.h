// Element types and shapes.
#ifndef SHARDPLANE_COMMON_TENSOR_TYPE_H_
#define SHARDPLANE_COMMON_TENSOR_TYPE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace shardplane {

enum class DType : uint8_t {
  kFloat32 = 1,
  kFloat64,
  kFloat16,
  kBFloat16,
  kInt64,
  kInt32,
  kInt16,
  kInt8,
  kUInt8,
  kBool,
  kComplex64,   // two f32: real part, imaginary part
  kComplex128,  // two f64
};

int64_t ByteSize(DType dtype);      // of one element
bool IsFloatingPoint(DType dtype);  // of real numbers
bool IsComplex(DType dtype);        // of complex ones
bool CarriesGradient(DType dtype);  // either: such a value can have one
std::string ToString(DType dtype);  // "f32", "i64", "bool", "c64"

// Of the parts of a complex number: c64 -> f32; others as they are.
DType RealOf(DType dtype);
// Of numbers with such parts, as torch.complex has it: f64 -> c128; all other
// dtypes of real numbers -> c64; complex ones as they are.
DType ComplexOf(DType dtype);

using Shape = std::vector<int64_t>;  // in elements, every extent >= 0

int64_t NumElements(absl::Span<const int64_t> shape);        // 1 for a scalar
std::string ShapeToString(absl::Span<const int64_t> shape);  // "[8, 10]"

// A tensor's global dtype and shape: `f32[8, 10]`.
struct TensorType {
  DType dtype = DType::kFloat32;
  Shape shape;

  friend bool operator==(const TensorType&, const TensorType&) = default;
};

int64_t ByteSize(const TensorType& type);
std::string ToString(const TensorType& type);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_TENSOR_TYPE_H_
