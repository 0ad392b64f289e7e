// How the calls of a program are cut, decided once for all that are alike.
// Used by op_emitter.cc.
#ifndef SHARDPLANE_COMMON_OP_DECISIONS_H_
#define SHARDPLANE_COMMON_OP_DECISIONS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/node_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/device_mesh.h"
#include "common/op_rules.h"
#include "common/op_sharding.h"

namespace shardplane {

// A call whose tensors are program values. In `args` and `kwargs` a NodeRef's
// name is the decimal id of a value.
struct ValueCall {
  std::string target;
  std::vector<Argument> args;
  absl::btree_map<std::string, Argument> kwargs;
  std::vector<TensorType> results;  // as recorded; may be empty
  std::string fqn;                  // of the module
  std::string name;                 // of the node
};

struct OpDecision {
  OpInstance op;  // which values its tensors are is another call's
  OpSharding sharding;
};

// A rule and a choice of cuts follow from operator, arguments, and what the
// operands are; where they stand in the module says nothing. So the calls of a
// repeated block are those of its first copy.
class OpDecisions {
 public:
  explicit OpDecisions(const DeviceMesh& mesh) : mesh_(mesh) {}

  // `operands`: of the tensors in args, then kwargs. Errors of MakeOpInstance,
  // which are not remembered. What it returns stays where it is.
  absl::StatusOr<const OpDecision*> Of(const ValueCall& call,
                                       absl::Span<const OperandState> operands);

  // How many calls no earlier one was like.
  size_t size() const { return decisions_.size(); }

 private:
  struct View {
    const std::string& target;
    const std::vector<Argument>& args;
    const absl::btree_map<std::string, Argument>& kwargs;
    const std::vector<TensorType>& results;
    absl::Span<const OperandState> operands;
  };
  struct Key {
    std::string target;
    std::vector<Argument> args;
    absl::btree_map<std::string, Argument> kwargs;
    std::vector<TensorType> results;
    std::vector<OperandState> operands;

    operator View() const { return {target, args, kwargs, results, operands}; }
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(const View& view) const;
  };
  struct Alike {
    using is_transparent = void;
    bool operator()(const View& a, const View& b) const;
  };

  DeviceMesh mesh_;
  absl::node_hash_map<Key, OpDecision, Hash, Alike> decisions_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_OP_DECISIONS_H_
