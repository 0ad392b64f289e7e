// Small tensors, which travel within a request or an answer.
#ifndef SHARDPLANE_CLIENT_INLINE_TENSOR_H_
#define SHARDPLANE_CLIENT_INLINE_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/error_info.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

// The dtype of tensors whose elements are T; others do not compile. (bool and
// 16-bit floats have no vector of elements in C++: give their bytes.)
template <typename T>
constexpr v1::DType DTypeOf() {
  if constexpr (std::is_same_v<T, float>) {
    return v1::DTYPE_FLOAT32;
  } else if constexpr (std::is_same_v<T, double>) {
    return v1::DTYPE_FLOAT64;
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return v1::DTYPE_INT64;
  } else if constexpr (std::is_same_v<T, int32_t>) {
    return v1::DTYPE_INT32;
  } else if constexpr (std::is_same_v<T, int16_t>) {
    return v1::DTYPE_INT16;
  } else if constexpr (std::is_same_v<T, int8_t>) {
    return v1::DTYPE_INT8;
  } else {
    static_assert(std::is_same_v<T, uint8_t>, "no dtype has these elements");
    return v1::DTYPE_UINT8;
  }
}

// The bytes of elements, row-major and little-endian: what the API carries.
// Borrows them.
template <typename T>
absl::string_view BytesOf(absl::Span<const T> values) {
  return absl::string_view(reinterpret_cast<const char*>(values.data()),
                           values.size() * sizeof(T));
}

// The way back. InvalidArgument: the bytes are no whole number of elements.
template <typename T>
absl::StatusOr<std::vector<T>> ValuesOf(absl::string_view bytes) {
  if (bytes.size() % sizeof(T) != 0) {
    return ClientError(absl::StatusCode::kInvalidArgument,
                       "TENSOR_SIZE_MISMATCH", "",
                       absl::StrCat("expected elements of ", sizeof(T),
                                    " bytes, got: ", bytes.size(), " bytes"));
  }
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!bytes.empty()) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
  }
  return values;
}

template <typename T>
v1::TensorType TypeOf(absl::Span<const int64_t> shape) {
  v1::TensorType type;
  type.set_dtype(DTypeOf<T>());
  type.mutable_shape()->Add(shape.begin(), shape.end());
  return type;
}

// `values`: all elements, row-major. Whether they fit the shape, and whether
// they are few enough (1 MiB), is checked by the coordinator.
//
//   InlineTensor<float>({2, 2}, {1, 2, 3, 4})
template <typename T>
v1::Tensor InlineTensor(absl::Span<const int64_t> shape,
                        const std::vector<T>& values) {
  v1::Tensor tensor;
  *tensor.mutable_type() = TypeOf<T>(shape);
  const absl::string_view bytes = BytesOf(absl::MakeConstSpan(values));
  tensor.set_inline_(bytes.data(), bytes.size());
  return tensor;
}

// InvalidArgument: it has another dtype, or is not inline.
template <typename T>
absl::StatusOr<std::vector<T>> ValuesOf(const v1::Tensor& tensor) {
  if (tensor.type().dtype() != DTypeOf<T>() || !tensor.has_inline_()) {
    return ClientError(
        absl::StatusCode::kInvalidArgument, "DTYPE_MISMATCH", "",
        absl::StrCat(
            "expected an inline tensor of ", v1::DType_Name(DTypeOf<T>()),
            ", got: ", tensor.has_inline_() ? "one of " : "an upload of ",
            v1::DType_Name(tensor.type().dtype())));
  }
  return ValuesOf<T>(absl::string_view(tensor.inline_()));
}

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_INLINE_TENSOR_H_
