// A compiled program: what every rank runs for one signature of one module,
// forward and backward, as data. Independent of rank: where a local size is
// needed, it is written as extents and the mesh dims that cut them.
#ifndef SHARDPLANE_COMMON_SHARDED_PROGRAM_H_
#define SHARDPLANE_COMMON_SHARDED_PROGRAM_H_

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "common/device_mesh.h"
#include "common/placement.h"
#include "common/tensor_spec.h"
#include "common/tensor_type.h"

namespace shardplane {

using ValueId = int;  // index in ShardedProgram::values

// Anything a rank holds. Text form: `%3: f32[8, 16] [S(1)] net1.linear`.
struct Value {
  std::string name;  // for readers: FQN and node
  TensorType type;   // global
  DTensorSpec spec;
  friend bool operator==(const Value&, const Value&) = default;
};

// A size that may differ by rank: the product of the local parts of its
// factors. Text form: `8/tp*4`.
struct LocalSize {
  std::vector<DimCuts> factors;
  friend bool operator==(const LocalSize&, const LocalSize&) = default;
};

int64_t Evaluate(const LocalSize& size, const DeviceMesh& mesh,
                 absl::Span<const int> coordinate);

// Where this rank's part of a dim begins in the whole dim, in elements; 0
// where its part is empty. A packed dim of several blocks has none. Text form:
// `offset(8/tp)`.
struct LocalOffset {
  DimCuts dim;
  friend bool operator==(const LocalOffset&, const LocalOffset&) = default;
};

int64_t Evaluate(const LocalOffset& offset, const DeviceMesh& mesh,
                 absl::Span<const int> coordinate);

struct ProgramArgument;
using ProgramArgumentList = std::vector<ProgramArgument>;
struct ValueRef {
  ValueId id = 0;
  friend bool operator==(const ValueRef&, const ValueRef&) = default;
};
struct ProgramArgument {
  std::variant<std::monostate, ValueRef, int64_t, double, bool, std::string,
               DType, LocalSize, LocalOffset, ProgramArgumentList>
      value;
  friend bool operator==(const ProgramArgument&,
                         const ProgramArgument&) = default;
};

// One operator on local tensors. `target` is "aten.linear.default": namespace,
// name, overload. Arguments follow the operator's schema; those left out take
// its defaults.
struct Op {
  std::string target;
  std::vector<ProgramArgument> args;
  std::vector<std::pair<std::string, ProgramArgument>> kwargs;
  std::vector<ValueId> results;  // one per tensor result, in order
  std::string fqn;               // the module it comes from
  friend bool operator==(const Op&, const Op&) = default;
};

// Operators between collectives. In forward they run on detached inputs, with
// recording on where a RunSegmentBackward follows.
struct Segment {
  std::vector<ValueId> inputs;   // made before it
  std::vector<ValueId> outputs;  // used after it
  std::vector<Op> ops;
  // Inputs that get a gradient (subset of inputs) and outputs that have one
  // (subset of outputs); both empty: nothing is recorded.
  std::vector<ValueId> differentiable_inputs;
  std::vector<ValueId> differentiable_outputs;
  friend bool operator==(const Segment&, const Segment&) = default;
};

struct RunSegment {
  int segment = 0;
  friend bool operator==(const RunSegment&, const RunSegment&) = default;
};

// Gradients of a segment's inputs from those of its outputs.
struct RunSegmentBackward {
  int segment = 0;
  // Gradient of each of the segment's differentiable outputs, in their order;
  // -1: no gradient reaches it (zero).
  std::vector<ValueId> output_gradients;
  // Gradient of each of its differentiable inputs, in their order; -1: a
  // RunWeightGradients makes it.
  std::vector<ValueId> input_gradients;
  friend bool operator==(const RunSegmentBackward&,
                         const RunSegmentBackward&) = default;
};

// What the segment's backward, which ran before, has left out: the gradients of
// weights of aten.linear.default, each a product of what that got and of the
// gradient of what it gave. Each is an operand of that op alone, and what the
// op gets asks for a gradient.
struct RunWeightGradients {
  int segment = 0;
  std::vector<ValueId> weights;    // of its differentiable inputs
  std::vector<ValueId> gradients;  // one each
  friend bool operator==(const RunWeightGradients&,
                         const RunWeightGradients&) = default;
};

enum class RedistributeKind {
  kAllReduce,      // P -> R; S(d: ../r+) -> S(d: ../r), of groups of r
  kAllGather,      // S(from_dim) -> R
  kReduceScatter,  // P -> S(to_dim)
  kAllToAll,       // S(from_dim) -> S(to_dim)
  kSlice,          // R, or S(d: ../r), -> S(to_dim); local
  kMask,           // R -> P: the value on index 0 of the dim, else zero; local
  kAlias,          // the same tensor under another id (vary, or what all ranks
                   // share as R); local
  kSpread,         // S(d) -> S(d: ../r+), or P: zeros where others' are; local
};
std::string ToString(RedistributeKind kind);  // "all_reduce", "slice"
bool IsCollective(RedistributeKind kind);

// One step of one mesh dim. The tensor's other cuts stay.
struct Redistribute {
  RedistributeKind kind = RedistributeKind::kAlias;
  int mesh_dim = 0;
  int from_dim = -1;
  int to_dim = -1;
  ReduceOp op = ReduceOp::kSum;
  ValueId input = 0;
  ValueId output = 0;
  friend bool operator==(const Redistribute&, const Redistribute&) = default;
};

// Several tensors of one dtype in one collective, an all_reduce, all_gather or
// reduce_scatter: each as a Redistribute of that kind has it.
struct Bucket {
  RedistributeKind kind = RedistributeKind::kAllReduce;
  int mesh_dim = 0;
  ReduceOp op = ReduceOp::kSum;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;  // one an input
  // The tensor dim that each is gathered from or scattered to; none of
  // all_reduce.
  std::vector<int> dims;
  bool async = false;  // only started: its outputs are there after a Wait
  // An all_gather whose outputs were made before and lost their memory since,
  // by a Reshard: they get it back, and so do those that share it.
  bool again = false;
  friend bool operator==(const Bucket&, const Bucket&) = default;
};
// What becomes of its input `i`.
Redistribute StepOf(const Bucket& bucket, size_t i);
// Whether its outputs lie in one block, as the sums of several tensors do.
bool SharesBlock(const Bucket& bucket);

// The end of what was started: these values, outputs of async buckets, are
// there now. A phase waits for all that it starts.
struct Wait {
  std::vector<ValueId> values;
  friend bool operator==(const Wait&, const Wait&) = default;
};

// Gathered parameters, or replicated activations, give their memory back, and
// so do their aliases, until a Bucket gathers them again. What autograd has
// kept of them gets it back, too.
struct Reshard {
  std::vector<ValueId> values;
  // Of activations, one each: what a slice along `mesh_dim` to `to_dim` makes,
  // in memory of its own. Parameters have none: their parts are stored.
  std::vector<ValueId> outputs = {};
  int mesh_dim = 0;
  int to_dim = -1;
  friend bool operator==(const Reshard&, const Reshard&) = default;
};
// How output `i` is made.
Redistribute StepOf(const Reshard& reshard, size_t i);

// output = sum of inputs, in order: gradients of a value used several times.
struct Accumulate {
  std::vector<ValueId> inputs;
  ValueId output = 0;
  friend bool operator==(const Accumulate&, const Accumulate&) = default;
};

// output filled with ones: the gradient of a loss.
struct Ones {
  ValueId output = 0;
  friend bool operator==(const Ones&, const Ones&) = default;
};

// Values that nothing uses any more.
struct Free {
  std::vector<ValueId> values;
  friend bool operator==(const Free&, const Free&) = default;
};

using Instruction =
    std::variant<RunSegment, RunSegmentBackward, RunWeightGradients,
                 Redistribute, Bucket, Wait, Reshard, Accumulate, Ones, Free>;

struct ParameterBinding {
  std::string fqn;  // canonical
  ValueId value = 0;
  ValueId gradient = -1;  // placed as the parameter; -1: gets none
  // What a buffer becomes when the step is accepted; made by the forward pass,
  // placed as the buffer. -1: it stays.
  ValueId update = -1;
  friend bool operator==(const ParameterBinding&,
                         const ParameterBinding&) = default;
};

struct InputBinding {
  ValueId value = 0;      // its spec says how the global input is handed out
  ValueId gradient = -1;  // -1: gets none
  friend bool operator==(const InputBinding&, const InputBinding&) = default;
};

struct ShardedProgram {
  DeviceMesh mesh;
  std::vector<Value> values;
  std::vector<Segment> segments;
  std::vector<ParameterBinding> parameters;
  std::vector<InputBinding> inputs;  // the module's, then the loss's targets
  std::vector<ValueId> outputs;      // of the module
  ValueId loss = -1;                 // -1: forward only
  // i64[2], alike on every rank: the deployment's seed, and the number of the
  // step that random masks are drawn for. -1: nothing here is random. The
  // worker makes it anew for each run.
  ValueId random = -1;
  std::vector<Instruction> instructions;
  // Instructions from here on are the backward pass.
  int backward_begin = 0;

  friend bool operator==(const ShardedProgram&,
                         const ShardedProgram&) = default;
};

// Values that it uses or makes. Of a backward, gradients: what its operators
// have kept they hold themselves.
std::vector<ValueId> ValuesOf(const ShardedProgram& program,
                              const Instruction& instruction);

// Whether a run changes buffers: then it is a step and takes a number.
bool ChangesBuffers(const ShardedProgram& program);

// InvalidArgument: an id out of range, a value used before it is made, while it
// is under way or after it was freed or resharded, a step whose specs do not
// fit its kind. A worker checks this before it runs anything.
absl::Status Validate(const ShardedProgram& program);

// The whole program, one instruction a line; what goldens hold.
std::string ToString(const ShardedProgram& program);

// One collective as a rank runs it; what hashes and counts are made of.
struct CollectiveRecord {
  RedistributeKind kind = RedistributeKind::kAllReduce;
  int mesh_dim = 0;
  DType dtype = DType::kFloat32;
  int64_t send_elements = 0;  // what this rank puts in, padding included
  int64_t recv_elements = 0;  // what it gets, padding included
  friend bool operator==(const CollectiveRecord&,
                         const CollectiveRecord&) = default;
};

// Bytes that a record counts for: the larger of its two buffers.
int64_t CountedBytes(const CollectiveRecord& record);

enum class Phase { kForward, kBackward };

// The collectives that the rank at `coordinate` runs in one phase, in order.
// Sizes: all_reduce n -> n. all_gather: padded chunk c -> c * W, where c is
// ceil(n_dim / W) of the local tensor before the cut. reduce_scatter:
// c * W -> c. all_to_all: the local shard -> the new local shard, unpadded.
// A mesh dim of size 1 runs nothing.
std::vector<CollectiveRecord> Collectives(const ShardedProgram& program,
                                          Phase phase,
                                          absl::Span<const int> coordinate);

// Order-sensitive 64-bit hash (FNV-1a over the fields, little-endian).
// `seed` continues an earlier hash; kCollectiveHashSeed starts one.
inline constexpr uint64_t kCollectiveHashSeed = 14695981039346656037ull;
uint64_t HashCollective(uint64_t seed, const CollectiveRecord& record);
uint64_t HashCollectives(absl::Span<const CollectiveRecord> records,
                         uint64_t seed = kCollectiveHashSeed);

// Hex digest of the whole program: equal programs, equal digests.
std::string Digest(const ShardedProgram& program);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_SHARDED_PROGRAM_H_
