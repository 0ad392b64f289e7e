// First values of parameters without data. They are counter-based: each element
// is made from the seed, the parameter's FQN and the element's index in the
// global tensor alone, so that every mesh starts from the same model and no
// rank needs another's part.
#ifndef SHARDPLANE_COMMON_INITIALIZER_H_
#define SHARDPLANE_COMMON_INITIALIZER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/graph_module.h"
#include "common/tensor_spec.h"
#include "common/tensor_type.h"

namespace shardplane {

// The bytes of the part of a parameter that the stretches name (one list per
// dim of `type`, the global tensor). `fqn` is the canonical name. Element i of
// the global tensor, row-major, has the Philox key `seed` and the counter (i,
// hash of the FQN). Normal values are Box and Muller's. InvalidArgument:
// uniform or normal values of a dtype that is not floating point; a part or a
// zero row outside the tensor; values that lie in files.
absl::StatusOr<std::string> InitialValues(const Initializer& initializer,
                                          uint64_t seed, absl::string_view fqn,
                                          const TensorType& type,
                                          absl::Span<const Stretches> part);

// What torch does for a parameter of a known module type, in distribution:
// Linear uniform within 1/sqrt(fan in), Embedding normal(0, 1) with its padding
// row zero, norms ones and zeros. Unimplemented, naming FQN and remedy, for any
// other; InvalidArgument for a padding_idx that is no row.
absl::StatusOr<Initializer> DefaultInitializer(const GraphModule& module,
                                               const Parameter& parameter);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_INITIALIZER_H_
