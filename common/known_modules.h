// Module types that need no graph: the core knows their attributes, which are
// the keywords of torch.nn's constructors, their parameters and their forward.
// The tables are in known_attributes.cc, known_parameters.cc and
// known_modules.cc.
#ifndef SHARDPLANE_COMMON_KNOWN_MODULES_H_
#define SHARDPLANE_COMMON_KNOWN_MODULES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/graph_module.h"

namespace shardplane {

// "Linear" for "torch.nn.Linear"; "" for a type that is not known. A subclass
// of a known type is none: it may have a forward of its own.
absl::string_view KnownType(const ModuleNode& module);

// The attributes of one module, as its type has them. A value; valid once
// created.
class KnownAttributes {
 public:
  // `type`: KnownType(module), not "". InvalidArgument, naming FQN and
  // attribute: one that the type does not have, or a value of another kind.
  static absl::StatusOr<KnownAttributes> Create(const ModuleNode& module,
                                                absl::string_view type);

  // The value, torch's default where it is left out, or None where there is
  // none. Numbers are of the kind that the type asks for (1 -> 1.0), sizes are
  // lists (16 -> [16]).
  const Argument& Get(absl::string_view name) const;
  bool IsTrue(absl::string_view name) const;  // of a bool
  // Whether the description names it, and not as None.
  bool IsGiven(absl::string_view name) const;

 private:
  struct Value {
    Argument value;
    bool given = false;
  };
  absl::btree_map<std::string, Value> values_;
};

// The attributes that a type has, in order: {"in_features", ...}.
std::vector<std::string> KnownAttributeNames(absl::string_view type);

// A parameter as a description lists it.
struct ListedParameter {
  Parameter parameter;
  // False: the description leaves its type out. It is that of the tensor that
  // it is an alias of, or what the owner's attributes say.
  bool has_type = true;
};

struct CompletedParameter {
  Parameter parameter;
  int listed = -1;  // index in the list, or -1: from the attributes alone
};

// All parameters of a description. A module of a known type without a graph
// that lists none of its parameters has those that its attributes imply,
// trainable, of attribute `dtype` (f32 if left out); they come in the order of
// the modules, and otherwise the order stays.
//   Linear, in_features=4, out_features=8     -> weight f32[8, 4], bias f32[8]
//   the same with its weight listed           -> weight
//   LayerNorm, elementwise_affine=false       -> nothing
// InvalidArgument, naming the FQN: attributes that KnownAttributes::Create
// refuses, sizes that are incomplete or negative, a listed parameter that
// contradicts the attributes, or whose type nothing says.
absl::StatusOr<std::vector<CompletedParameter>> CompleteParameters(
    const std::vector<ModuleNode>& modules,
    std::vector<ListedParameter> listed);

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_KNOWN_MODULES_H_
