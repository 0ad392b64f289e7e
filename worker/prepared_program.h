// A sharded program made ready for one rank, and its run.
#ifndef SHARDPLANE_WORKER_PREPARED_PROGRAM_H_
#define SHARDPLANE_WORKER_PREPARED_PROGRAM_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sharded_program.h"
#include "common/timeline.h"
#include "common/weight_products.h"
#include "worker/collectives.h"
#include "worker/data_faults.h"
#include "worker/executor.h"
#include "worker/gradients.h"
#include "worker/nvtx_range.h"
#include "worker/operators.h"
#include "worker/packed_dim.h"
#include "worker/segments.h"

namespace shardplane {

// What a run leaves behind. Entries without a tensor are undefined.
struct ProgramResult {
  std::vector<at::Tensor> outputs;
  at::Tensor loss;
  NamedTensors gradients;
  NamedProducts products;                   // gradients that were not made
  NamedTensors updates;                     // of buffers
  std::vector<at::Tensor> input_gradients;  // by input
  std::vector<CollectiveRecord> forward;
  std::vector<CollectiveRecord> backward;
};

// What random masks follow from, beside their place in the program.
struct RandomCounter {
  uint64_t seed = 0;  // of the deployment
  uint64_t step = 0;
  // i64[2], seed and step, where masks are drawn; undefined: of those numbers.
  at::Tensor words = {};
};

// i64[2] on the host.
at::Tensor WordsOf(const RandomCounter& random);

// Immutable once created: it may be run any number of times.
class PreparedProgram {
 public:
  // InvalidArgument: a program that Validate refuses. NotFound: an operator
  // that LibTorch lacks.
  static absl::StatusOr<std::unique_ptr<PreparedProgram>> Create(
      const ShardedProgram& program, const OperatorContext& context);

  // `parameters` in the order of program().parameters, `inputs` (local parts)
  // in the order of program().inputs, masks drawn for `random`. kTrain needs a
  // program with a loss, or one that changes buffers and then has a forward
  // pass alone: else FailedPrecondition. InvalidArgument, after all
  // collectives have run: ids out of range. Throws what torch throws. Fills
  // `timeline` if there is one. With `keep_products` the gradients that
  // FindWeightProducts names are left as products, whose factors no later step
  // changes. With `checks` ids are not checked: that is left to it.
  using Checks = DataFaults::Checks;
  absl::StatusOr<ProgramResult> Run(
      RunMode mode, absl::Span<const at::Tensor> parameters,
      absl::Span<const at::Tensor> inputs, Communicator& communicator,
      RandomCounter random = {}, RunTimeline* timeline = nullptr,
      bool keep_products = false, Checks* checks = nullptr) const;

  const ShardedProgram& program() const { return program_; }
  // The part of an input that this rank gets. A Partial input lies whole on
  // coordinate 0 of its mesh dim and is zero elsewhere.
  std::vector<Stretches> InputPart(int input) const;
  bool InputIsZero(int input) const;

 private:
  struct State;

  PreparedProgram(const ShardedProgram& program,
                  const OperatorContext& context);

  // prepared_segments.cc
  absl::Status PrepareSegments(const ShardedProgram& program);
  absl::Status Execute(const RunSegment& step, State& state) const;
  absl::Status Execute(const RunSegmentBackward& step, State& state) const;
  absl::Status Execute(const RunWeightGradients& step, State& state) const;
  const PreparedSegment& SegmentOf(int segment, const State& state) const;
  bool IsKeptProduct(int segment, ValueId gradient, const State& state) const;
  // Ends the segment's recording. Those that the run keeps go to `state`; the
  // others, by weight.
  absl::flat_hash_map<ValueId, WeightProduct> TakeProducts(int segment,
                                                           State& state) const;
  // Makes those whose factors are memory of parameters.
  NamedProducts CollectProducts(State& state) const;
  absl::Status Execute(const Redistribute& step, State& state) const;
  absl::Status Execute(const Bucket& step, State& state) const;
  absl::Status Execute(const Wait& step, State& state) const;
  absl::Status Execute(const Reshard& step, State& state) const;
  absl::Status Execute(const Accumulate& step, State& state) const;
  absl::Status Execute(const Ones& step, State& state) const;
  absl::Status Execute(const Free& step, State& state) const;
  // prepared_moves.cc
  at::Tensor Slice(const Redistribute& step, const at::Tensor& input) const;
  at::Tensor Spread(const Redistribute& step, const at::Tensor& input) const;
  // How a value is cut along a mesh dim, the innermost cut of its dim.
  PackedDim PackedOf(ValueId id, int mesh_dim) const;
  bool IsPacked(const Redistribute& step) const;
  // Before and after a collective; others than packed cuts stay as they are.
  at::Tensor InChunks(const Redistribute& step, const at::Tensor& input) const;
  at::Tensor FromChunks(const Redistribute& step, const at::Tensor& input,
                        const at::Tensor& result) const;
  int64_t GatheredExtent(const Redistribute& step) const;
  absl::StatusOr<at::Tensor> Move(const Redistribute& step,
                                  const at::Tensor& input,
                                  Communicator& communicator) const;
  absl::StatusOr<at::Tensor> Communicate(const Redistribute& step,
                                         const at::Tensor& input,
                                         Communicator& communicator) const;
  absl::StatusOr<Communicator::BegunEach> Begin(
      const Bucket& step, absl::Span<const at::Tensor> inputs,
      Communicator& communicator) const;
  // `inputs`: those of shared sums, which say where the others belong.
  absl::Status End(const Bucket& step, absl::Span<const at::Tensor> inputs,
                   std::vector<at::Tensor> outputs, State& state) const;
  absl::Status CheckShape(ValueId id, const at::Tensor& tensor) const;
  // Puts parameters, inputs and the random counter in their places.
  absl::Status Bind(absl::Span<const at::Tensor> parameters,
                    absl::Span<const at::Tensor> inputs, RandomCounter random,
                    State& state) const;
  absl::Status ExecuteRange(const char* name, int begin, int end,
                            State& state) const;
  ProgramResult Collect(State& state) const;

  ShardedProgram program_;
  OperatorContext context_;          // its mesh is program_'s
  NvtxNames names_;                  // by instruction
  std::vector<Shape> local_shapes_;  // by value
  std::vector<PreparedSegment> segments_;
  // The same for runs that keep products; none where there are none.
  std::vector<std::optional<PreparedSegment>> product_segments_;
  std::vector<at::Tensor> constants_;       // by value, of Ones; else undefined
  std::vector<bool> kept_;                  // by value: outlives the run
  std::vector<bool> has_backward_;          // by segment
  std::vector<std::vector<ValueId>> late_;  // by segment
  std::vector<std::vector<WeightProductRow>> products_;  // by segment
  std::vector<bool> gathered_;  // by value: a collective's, perhaps padded
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_PREPARED_PROGRAM_H_
