// Turns one call of a graph into instructions: rule, choice of cuts, demands,
// op. Used by compile.cc.
#ifndef SHARDPLANE_COMMON_OP_EMITTER_H_
#define SHARDPLANE_COMMON_OP_EMITTER_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/compile.h"
#include "common/graph_module.h"
#include "common/op_decisions.h"
#include "common/packing.h"
#include "common/program_builder.h"

namespace shardplane {

Argument RefTo(ValueId id);

class OpEmitter {
 public:
  OpEmitter(ProgramBuilder* builder, const CompileOptions& options,
            CompiledProgram* compiled)
      : builder_(builder),
        options_(options),
        compiled_(compiled),
        decisions_(builder->mesh()) {}

  // One value per result. Errors name the FQN and the op.
  absl::StatusOr<std::vector<ValueId>> Emit(const ValueCall& call);

  ProgramBuilder& builder() { return *builder_; }
  // How many calls no earlier one was like.
  size_t distinct_calls() const { return decisions_.size(); }
  // Whether some operator had to have a cut operand moved.
  bool gathers() const { return gathers_; }
  // All that were emitted by their rules, which are this emitter's.
  std::vector<EmittedCall> TakeCalls() { return std::move(calls_); }

 private:
  absl::StatusOr<std::vector<ValueId>> EmitOne(const ValueCall& call);
  absl::Status WarnReplicated(const ValueCall& call,
                              const std::vector<OperandState>& states);
  // A view whose dims a cut does not meet: heads that do not divide.
  void NoteGatheredView(const ValueCall& call, const OpInstance& op,
                        const OpSharding& sharding, const OperandState& state);
  absl::StatusOr<std::vector<ValueId>> EmitChosen(
      const ValueCall& call, const OpInstance& op, const OpSharding& sharding,
      const std::vector<ValueId>& tensors);
  absl::StatusOr<ValueId> EmitWithAddedTerm(
      const ValueCall& call, const OpInstance& op, const OpSharding& sharding,
      const std::vector<ValueId>& tensors);
  ValueId EmitMean(const ValueCall& call, const OpInstance& op,
                   const OpSharding& sharding,
                   const std::vector<ValueId>& operands);
  Op ToEmbedding(const OpInstance& op, const OpSharding& sharding,
                 const std::vector<ValueId>& ids) const;
  Op ToParts(const OpInstance& op, const OpSharding& sharding,
             ValueId operand) const;
  // Whether some rank has nothing of a dim of the result.
  bool LeavesARankEmpty(const OpInstance& op, const OpSharding& sharding) const;
  Op ToDropout(const ValueCall& call, const OpInstance& op,
               const OpSharding& sharding, ValueId operand);
  void CountFlops(const OpInstance& op, const OpSharding& sharding,
                  const std::vector<ValueId>& tensors);

  ProgramBuilder* builder_;
  CompileOptions options_;
  CompiledProgram* compiled_;
  OpDecisions decisions_;
  bool gathers_ = false;
  std::vector<EmittedCall> calls_;
  std::map<std::string, int> dropouts_;  // by FQN, how many were emitted
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_EMITTER_H_
