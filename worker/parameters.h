// A rank's shards of parameters and buffers.
#ifndef SHARDPLANE_WORKER_PARAMETERS_H_
#define SHARDPLANE_WORKER_PARAMETERS_H_

#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "common/host_tensor.h"
#include "common/tensor_spec.h"
#include "worker/collectives.h"
#include "worker/executor.h"
#include "worker/weights/weight_files.h"

namespace shardplane {

struct ShardedParameter {
  TensorType type;  // global
  DTensorSpec spec;
  at::Tensor local;
};

// By canonical FQN.
using Parameters = absl::btree_map<std::string, ShardedParameter>;

// Takes a parameter's staged full tensor; NotFound, naming the FQN, if there
// is none.
using TakeSource =
    absl::FunctionRef<absl::StatusOr<HostTensor>(const std::string& fqn)>;

// Fills a rank's shards. With src_data_rank r the rank that has coordinate r
// on the plan's mesh dim and 0 elsewhere has the data; they go out along the
// mesh dims as TravelOrder says: a scatter where the dim cuts the parameter,
// else a broadcast. Without one each rank cuts its own. What lies in files each
// rank reads by itself, whatever src_data_rank; they are looked for before
// anything travels. InvalidArgument: data of another type than the parameter's,
// a source outside the mesh. As WeightFiles::Find and LoadPart.
class Materializer {
 public:
  // Borrows all but the numbers.
  Materializer(const MaterializeSpec& spec, const DeviceMesh& mesh, int rank,
               Communicator& communicator, WeightFiles& files);

  // `progress` may be null.
  absl::StatusOr<Parameters> Run(TakeSource take,
                                 MaterializeProgress* progress);

 private:
  absl::Status Check(const ParameterSource& source);
  int64_t LocalBytes(const ParameterSource& source) const;
  absl::StatusOr<WeightFiles::Found> FindStored(const ParameterSource& source);
  absl::StatusOr<at::Tensor> One(const ParameterSource& source,
                                 TakeSource take);
  absl::StatusOr<at::Tensor> Initial(const ParameterSource& source,
                                     absl::Span<const Stretches> part);
  absl::StatusOr<HostTensor> Source(const ParameterSource& source,
                                    TakeSource take);
  absl::StatusOr<at::Tensor> Distribute(const ParameterSource& source,
                                        TakeSource take);
  absl::StatusOr<at::Tensor> Along(const ParameterSource& source, int mesh_dim,
                                   int root, const at::Tensor& held,
                                   TensorType& type);
  // What this rank gets of a tensor that is cut along `mesh_dim` next.
  Stretches PartAlong(const ParameterSource& source, int mesh_dim,
                      const TensorType& type) const;

  const MaterializeSpec& spec_;
  const DeviceMesh& mesh_;
  std::vector<int> coordinate_;
  Communicator& communicator_;
  WeightFiles& files_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_PARAMETERS_H_
