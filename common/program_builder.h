// Writes a sharded program: operators and redistributions forward, and from
// them, backward.
//
// A value is replicated, cut or partial along each mesh dim, and so is its
// gradient, but not alike:
//
//   value                                     its gradient
//   Shard(d)                                  Shard(d)
//   Replicate                                 Replicate
//   Partial                                   Replicate
//   Replicate, into work that differs by rank Partial(sum)   ("vary")
//
// So a replicated value that meets cut operands is first given a second id, by
// a vary: nothing forward, an all-reduce of its gradient backward. There is one
// vary per value and mesh dim, however many uses; q, k and v share it. Where
// the value comes straight from an all-gather, the two gradients' ways are one
// reduce-scatter.
#ifndef SHARDPLANE_COMMON_PROGRAM_BUILDER_H_
#define SHARDPLANE_COMMON_PROGRAM_BUILDER_H_

#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "common/link_costs.h"
#include "common/overlap.h"
#include "common/product_chunks.h"
#include "common/redistribute.h"
#include "common/reshard.h"
#include "common/sharded_program.h"

namespace shardplane {

struct ProgramBuilderOptions {
  // By mesh dim: what is stored in parts along it is gathered by units, and not
  // kept from forward to backward. Empty: along none.
  std::vector<bool> fully_sharded = {};
  OverlapOptions overlap = {};
  LinkCosts link_costs = {};
  std::vector<ReshardedInputs> resharded_inputs = {};
  bool fused_operators = false;  // see common/fused_operators.h
};

class ProgramBuilder {
 public:
  explicit ProgramBuilder(DeviceMesh mesh,
                          const ProgramBuilderOptions& options = {});

  const DeviceMesh& mesh() const { return program_.mesh; }
  const Value& value(ValueId id) const { return program_.values[id]; }
  const std::vector<Value>& values() const { return program_.values; }
  // By value, what it was moved from or is the reduction of; itself where it
  // was made. Of the forward pass.
  std::vector<ValueId> Origins() const;
  bool requires_grad(ValueId id) const { return info_[id].requires_grad; }
  bool is_parameter(ValueId id) const { return info_[id].parameter; }

  // Of a module whose graphs have so many nodes: that vectors need not grow,
  // which copies them.
  void Expect(size_t nodes);

  ValueId AddParameter(const std::string& fqn, const TensorType& type,
                       const DTensorSpec& spec, bool requires_grad);
  // An input whose placements are open until it is claimed or used.
  ValueId AddInput(const std::string& name, const TensorType& type,
                   bool requires_grad);
  // The seed and step that random masks are drawn for: i64[2].
  ValueId Random();
  // Says how an open input is handed out along `mesh_dim`. False, and nothing
  // changes, if that is decided already or the value is no input.
  bool Claim(ValueId id, int mesh_dim, const Placement& placement);
  // Open placements become Replicate.
  void Settle(ValueId id);

  struct Result {
    std::string name;
    TensorType type;
    DTensorSpec spec;
    bool requires_grad = false;
  };
  // Appends `op` (without results) to the running segment. Its tensors must
  // have been demanded with the placements that it works on.
  std::vector<ValueId> EmitOp(Op op, const std::vector<Result>& results);

  // base (Partial) + term, where the sum is to be made after the reduction of
  // base, whatever that is reduced to. The result has base's placements.
  ValueId AddAfterReduction(ValueId base, ValueId term,
                            const std::string& name);

  // The value with these placements, varying along the mesh dims of `vary`
  // (empty: none). Steps are shared with earlier demands of the same.
  absl::StatusOr<ValueId> Demand(ValueId id, const DTensorSpec& spec,
                                 const std::vector<bool>& vary);

  // Demand with one placement changed, along `mesh_dim`; other mesh dims of an
  // input that are open stay so.
  absl::StatusOr<ValueId> DemandAlong(ValueId id, int mesh_dim,
                                      const Placement& placement);
  // Whether the value is an AddAfterReduction that no demand has made yet.
  bool IsPendingSum(ValueId id) const { return info_[id].base >= 0; }

  // What follows belongs to another unit (common/units): it runs in segments of
  // its own, weights that it gathers are gathered together, and its gradients
  // are scattered when its backward is over.
  void BeginUnit();

  // What is between them keeps nothing for the backward pass but what it takes
  // from outside: it runs again there. Not nested.
  void BeginRecompute();
  void EndRecompute();
  bool recomputing() const {
    return !recomputed_.empty() && recomputed_.back().end < 0;
  }

  // A stored buffer becomes `value`, which lies as it does, when the step is
  // accepted. The last update counts.
  void Update(ValueId buffer, ValueId value);

  // Makes products in pieces beside the collectives that they wait for, where
  // that pays (common/product_chunks). Once the forward pass is written, before
  // Backward; `kept`: what Backward and Finish get.
  void ChunkProducts(const std::vector<ValueId>& kept);

  // Appends the backward pass of a 0-dim loss. InvalidArgument if nothing that
  // it depends on requires a gradient.
  absl::Status Backward(ValueId loss);

  // Call once, last.
  ShardedProgram Finish(std::vector<ValueId> outputs);

 private:
  using Flags = absl::InlinedVector<bool, 4>;
  using Gradients = absl::InlinedVector<ValueId, 2>;  // their sum
  struct Info {
    bool requires_grad = false;
    bool parameter = false;  // or made of one by redistributions
    bool stored = false;     // a parameter as it is stored, or a vary of it
    Flags vary;              // by mesh dim
    Flags open;              // by mesh dim; of inputs
    // Set for the result of an all-gather, varying or not: what was gathered,
    // along which mesh dim.
    ValueId gathered_from = -1;
    int gathered_along = -1;
    // Set for AddAfterReduction.
    ValueId base = -1;
    ValueId term = -1;
  };
  struct SegmentEntry {
    int segment = 0;
  };
  struct MoveEntry {
    Redistribute step;
    bool vary = false;
  };
  // sum = base + slice(term): the gradient of term is that of the whole sum,
  // which the backward of base's reduce-scatter gathers anyway.
  struct AddedEntry {
    ValueId base = 0;
    ValueId term = 0;
    ValueId sum = 0;
    std::vector<std::pair<int, int>> cuts;  // mesh dim, tensor dim of sum
    int segment = 0;                        // which has that op alone
  };
  struct UnitEntry {};  // where one begins
  using TapeEntry =
      std::variant<SegmentEntry, MoveEntry, AddedEntry, UnitEntry>;
  using MoveKey = std::pair<ValueId, DTensorSpec>;  // and the spec after

  // The arguments may be parts of another value.
  ValueId NewValue(const std::string& name, const TensorType& type,
                   const DTensorSpec& spec, bool requires_grad);
  DTensorSpec GradientSpec(ValueId id) const;
  void CloseSegment();
  // What it reads is found, and what it makes is noted, by its ops.
  int AppendSegment(Segment segment);
  void ReplaceOps(int segment, std::vector<Op> ops);
  ValueId EmitMove(ValueId id, const RedistributeStep& step);
  ValueId EmitVary(ValueId id, int mesh_dim);
  // What all ranks along `mesh_dim` share, as replicated and varying or as
  // shared along another dim.
  ValueId SharedAs(ValueId id, int mesh_dim, const Placement& placement);
  ValueId Vary(ValueId id, int mesh_dim);  // shared with earlier ones
  ValueId DemandVary(ValueId id, const std::vector<bool>& vary);
  absl::StatusOr<ValueId> RealizeSum(ValueId id, const DTensorSpec& spec);
  absl::StatusOr<ValueId> RealizeShared(
      ValueId id, ValueId base, const DTensorSpec& term_spec,
      const std::vector<bool>& term_vary,
      const std::vector<std::pair<int, int>>& cuts);
  ValueId EmitAdd(ValueId a, ValueId b, const Result& result);

  void AddGradient(ValueId id, ValueId gradient);
  void SumGradients();
  ValueId TakeGradient(ValueId id);  // -1: none
  // Along one mesh dim, to where it then lies.
  ValueId MoveBack(ValueId gradient, RedistributeKind kind, int mesh_dim,
                   const Placement& after);
  // All-gathers of parameters since the unit began become buckets.
  void GatherTogether();
  // Gradients of parameters that wait for a common collective.
  void ReduceDeferred();
  void ReduceBucket(RedistributeKind kind, int mesh_dim,
                    const std::vector<MoveEntry>& entries);
  bool Defers(const MoveEntry& entry) const;
  bool Scatters(const MoveEntry& entry) const;
  ValueId TargetOf(const MoveEntry& entry) const;
  void Back(const SegmentEntry& entry);
  void Back(const MoveEntry& entry);
  void Back(const AddedEntry& entry);
  void Back(const UnitEntry& entry);
  ValueId ScatteredTo(const Redistribute& vary) const;
  void BackVary(const Redistribute& step, ValueId gradient);

  class Chunker;
  void KeepWhole(ProductChunks* chunks) const;
  std::map<ValueId, AddedEntry> AddedByBase() const;

  // Instructions of the forward pass that run again.
  struct RecomputedRange {
    int begin = 0;
    int end = -1;
  };
  class Copier;
  int FirstBackwardOf(const RecomputedRange& range) const;
  void Recompute();

  void FillOutputs(const std::vector<ValueId>& outputs);
  void InsertFrees(const std::vector<ValueId>& outputs);

  // fully_sharded has all mesh dims; no chunks where nothing runs beside.
  const ProgramBuilderOptions options_;
  ShardedProgram program_;
  std::vector<Info> info_;
  std::vector<TapeEntry> tape_;
  Segment open_;
  absl::flat_hash_set<ValueId> open_made_;
  std::vector<std::vector<ValueId>> made_;  // by segment
  // By value: 1 + the last segment that has it, below 0 if its ops were
  // replaced.
  std::vector<int> known_in_;
  absl::flat_hash_map<std::pair<ValueId, DTensorSpec>, ValueId> demanded_;
  absl::flat_hash_map<std::pair<ValueId, DTensorSpec>, ValueId> sums_;
  absl::flat_hash_map<std::pair<ValueId, int>, ValueId> varied_;
  absl::flat_hash_map<std::pair<ValueId, DTensorSpec>, ValueId> shared_as_;
  std::vector<Gradients> gradients_;  // of the forward pass's values
  std::vector<ValueId> unsummed_;     // parameters with several of them
  absl::flat_hash_map<MoveKey, ValueId> moved_back_;
  std::vector<MoveEntry> deferred_;  // in the order of the backward pass
  int64_t deferred_bytes_ = 0;       // of their gradients, on rank 0
  std::vector<RecomputedRange> recomputed_;
  int unit_begin_ = 0;  // instructions before the unit
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_PROGRAM_BUILDER_H_
