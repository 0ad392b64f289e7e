// The global norm of a gang's gradients.
#ifndef SHARDPLANE_WORKER_GLOBAL_NORM_H_
#define SHARDPLANE_WORKER_GLOBAL_NORM_H_

#include <string>

#include "ATen/core/Tensor.h"
#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/collectives.h"
#include "worker/parameters.h"

namespace shardplane {

// The 2-norm over all elements of the gradients of all ranks, each replicated
// one counted once; the same bits on every rank. `gradients` are this rank's
// shards by FQN, placed as `parameters`; every rank calls it with the same
// names. Squares are summed in f64: the mesh changes rounding alone. Runs
// NormCollectives and nothing else. Throws what torch throws. Errors as
// Communicator's.
absl::StatusOr<double> GlobalNorm(
    const Parameters& parameters,
    const absl::btree_map<std::string, at::Tensor>& gradients,
    const DeviceMesh& mesh, absl::Span<const int> coordinate,
    Communicator& communicator);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GLOBAL_NORM_H_
