// Inputs of a step: from JSON, or random ones.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_INPUT_VALUES_H_
#define SHARDPLANE_CLIENT_SHARDCTL_INPUT_VALUES_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "client/shardctl/yaml_json.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

// Nested lists of numbers in the type's shape; a number alone fills it. Usage
// error: another shape, or an element that the dtype has not.
//
//   f32[2, 2], [[1, 2], [3, 4]]
absl::StatusOr<v1::Tensor> TensorOf(const v1::TensorType& type,
                                    const Document& values);

// The same for the same seed and index: floats uniform in [-1, 1), integers in
// [0, below), truth values either. Usage error: complex numbers.
absl::StatusOr<v1::Tensor> RandomTensor(const v1::TensorType& type,
                                        uint64_t seed, uint64_t index,
                                        int64_t below);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_INPUT_VALUES_H_
