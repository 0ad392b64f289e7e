#include "common/packing.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/dim_structure.h"
#include "common/errors.h"
#include "common/fqn.h"
#include "common/tensor_spec.h"

namespace shardplane {
namespace {

// Follows the dims of values through operators, both ways, until what is known
// of them changes no more.
class Structures {
 public:
  Structures(const EmittedProgram& program, absl::Span<const Value> values)
      : program_(program),
        values_(values),
        is_parameter_(values.size(), false),
        dims_(values.size()) {
    for (const ValueId id : program.parameters) {
      if (id >= 0) is_parameter_[id] = true;
    }
  }

  void Follow() {
    // Demands come from behind, mostly; what a key is repeated for tells its
    // query, so that each direction has something for the other.
    for (int round = 0; round < 3; ++round) {
      for (size_t i = program_.calls.size(); i-- > 0;) {
        Meet(program_.calls[i]);
      }
      for (const EmittedCall& call : program_.calls) Meet(call);
    }
  }

  const DimStructure& Of(ValueId id, int dim) { return DimsOf(id)[dim]; }

 private:
  std::vector<DimStructure>& DimsOf(ValueId id) {
    const ValueId origin = program_.origins[id];
    std::vector<DimStructure>& dims = dims_[origin];
    if (dims.empty()) {
      for (const int64_t size : values_[origin].type.shape) {
        dims.push_back(DimStructure::Of(size));
      }
    }
    return dims;
  }

  // visit(dim structure, factors) of each dim of each tensor of a call.
  template <typename Visit>
  void ForEachDim(const EmittedCall& call, Visit visit) {
    const auto tensor = [&](ValueId id, const DimFactors& factors) {
      std::vector<DimStructure>& dims = DimsOf(id);
      for (size_t d = 0; d < factors.size() && d < dims.size(); ++d) {
        if (!factors[d].empty()) visit(&dims[d], factors[d]);
      }
    };
    for (size_t i = 0; i < call.operands.size(); ++i) {
      tensor(call.operands[i], call.op->operands[i].dims);
    }
    for (size_t i = 0; i < call.results.size(); ++i) {
      tensor(call.results[i], call.op->results[i].dims);
    }
  }

  // What is summed over between activations is the width of queries and keys,
  // or might as well be: cut, the sums would have to travel. What the second of
  // them has for itself is the width of values.
  Wholeness WholenessOf(int factor, const EmittedCall& call) const {
    const OpInstance& op = *call.op;
    switch (op.factors[factor].kind) {
      case FactorKind::kWhole:
        return op.lowering == Lowering::kAttention ? Wholeness::kHead
                                                   : Wholeness::kWhole;
      case FactorKind::kReduced:
        return MultipliesActivations(call) ? Wholeness::kHead
                                           : Wholeness::kFree;
      case FactorKind::kPass:
        break;
    }
    const bool of_values = MultipliesActivations(call) &&
                           !Has(op.operands[0].dims, factor) &&
                           Has(op.operands[1].dims, factor);
    return of_values ? Wholeness::kHead : Wholeness::kFree;
  }

  static bool Has(const DimFactors& dims, int factor) {
    return std::any_of(dims.begin(), dims.end(), [&](const auto& dim) {
      return std::find(dim.begin(), dim.end(), factor) != dim.end();
    });
  }
  // Whether something is summed over between two values, none a parameter.
  bool MultipliesActivations(const EmittedCall& call) const {
    const std::vector<Factor>& factors = call.op->factors;
    return call.operands.size() == 2 &&
           std::any_of(factors.begin(), factors.end(),
                       [](const Factor& factor) {
                         return factor.kind == FactorKind::kReduced;
                       }) &&
           std::none_of(call.operands.begin(), call.operands.end(),
                        [this](ValueId id) {
                          return is_parameter_[program_.origins[id]];
                        });
  }

  // The factors of a call have what its tensors' dims say, and the dims what
  // the factors say then.
  void Meet(const EmittedCall& call) {
    const OpInstance& op = *call.op;
    std::vector<DimStructure> factors;
    for (int f = 0; f < static_cast<int>(op.factors.size()); ++f) {
      factors.push_back(
          DimStructure::Of(op.factors[f].size, WholenessOf(f, call)));
    }
    const auto sizes_of = [&op](const std::vector<int>& indices) {
      std::vector<int64_t> sizes;
      for (const int f : indices) sizes.push_back(op.factors[f].size);
      return sizes;
    };
    ForEachDim(call, [&](DimStructure* dim, const std::vector<int>& of) {
      if (dim->IsPlain()) return;
      const auto own = dim->Factored(sizes_of(of));
      if (!own.has_value()) return;
      for (size_t i = 0; i < of.size(); ++i) {
        factors[of[i]] = factors[of[i]].And((*own)[i]);
      }
    });
    for (const PartedFactor& parted : op.parted) {
      std::vector<DimStructure> parts;
      for (const int part : parted.parts) parts.push_back(factors[part]);
      DimStructure& whole = factors[parted.factor];
      whole = whole.And(DimStructure::Sum(parts));
      const auto own = whole.Parted(sizes_of(parted.parts));
      if (!own.has_value()) continue;
      for (size_t i = 0; i < own->size(); ++i) {
        factors[parted.parts[i]] = (*own)[i];
      }
    }
    ForEachDim(call, [&](DimStructure* dim, const std::vector<int>& of) {
      std::vector<DimStructure> own;
      for (const int f : of) own.push_back(factors[f]);
      *dim = dim->And(DimStructure::Product(own));
    });
  }

  const EmittedProgram& program_;
  absl::Span<const Value> values_;
  std::vector<bool> is_parameter_;
  std::vector<std::vector<DimStructure>> dims_;  // by value; of origins
};

// On rank 0, but for weights that are stored in parts: they travel alike
// however many tokens there are.
int64_t BytesMoved(const CompiledProgram& compiled, Phase phase,
                   const DataParallelDims& data_parallel) {
  int64_t bytes = 0;
  const ShardedProgram& program = compiled.program;
  for (const CollectiveRecord& record :
       Collectives(program, phase, program.mesh.Coordinate(0))) {
    if (data_parallel[record.mesh_dim] != DataParallelKind::kFullyShard) {
      bytes += CountedBytes(record);
    }
  }
  return bytes;
}

// Forward counts first: that the gradients of shared weights are reduced is a
// price that does not grow with the batch.
std::pair<int64_t, int64_t> Price(const CompiledProgram& compiled,
                                  const DataParallelDims& data_parallel) {
  return {BytesMoved(compiled, Phase::kForward, data_parallel),
          BytesMoved(compiled, Phase::kBackward, data_parallel)};
}

void Repack(const Packing& packing, DTensorSpec* spec) {
  Placement& placement = spec->placements[packing.mesh_dim];
  if (ShardDim(placement) != packing.tensor_dim) return;
  placement = Shard{packing.tensor_dim, packing.blocks};
}

// The plan with these cuts; all names of one tensor alike.
ResolvedPlan Repacked(const GraphModule& module, ResolvedPlan plan,
                      const std::vector<Packing>& packings) {
  const std::vector<Parameter>& parameters = module.parameters();
  for (const Packing& packing : packings) {
    const Parameter* packed = &parameters[packing.parameter];
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (&module.Canonical(parameters[i]) != packed) continue;
      Repack(packing, &plan.parameter_specs[i]);
      Repack(packing, &plan.wanted_specs[i]);
    }
    const DTensorSpec& spec = plan.parameter_specs[packing.parameter];
    plan.diagnostics.push_back(
        {Severity::kNote, "PACKED",
         absl::StrCat("\"", packed->fqn, "\" is cut as ", ToString(spec),
                      ": so the program takes it apart"),
         SplitFqn(packed->fqn).first, ""});
  }
  return plan;
}

// A parameter that the plan cuts along a mesh dim, nothing before it.
struct PlannedCut {
  int parameter = 0;
  int mesh_dim = 0;
  int tensor_dim = 0;
  Blocks blocks;
  DimStructure dim;    // what the program makes of it
  std::string within;  // the module that has the parameter's
};

std::vector<PlannedCut> CutsOf(const EmittedProgram& program,
                               const GraphModule& module,
                               const DeviceMesh& mesh, const ResolvedPlan& plan,
                               Structures* structures) {
  std::vector<PlannedCut> cuts;
  for (size_t p = 0; p < program.parameters.size(); ++p) {
    const Parameter& parameter = module.parameters()[p];
    const ValueId id = program.parameters[p];
    if (id < 0 || &module.Canonical(parameter) != &parameter) continue;
    const DTensorSpec& spec = plan.wanted_specs[p];
    for (int m = 0; m < mesh.ndim(); ++m) {
      const int dim = ShardDim(spec.placements[m]);
      if (dim < 0 || CutsOf(spec, dim)[0] != m || mesh.dim_size(m) == 1) {
        continue;
      }
      cuts.push_back({static_cast<int>(p), m, dim, BlocksOf(spec.placements[m]),
                      structures->Of(id, dim),
                      SplitFqn(SplitFqn(parameter.fqn).first).first});
    }
  }
  return cuts;
}

// The width of the only head that a part is; 0: it is not.
int64_t OnlyHead(const DimPart& part) {
  const bool head =
      std::all_of(part.begin(), part.end(), [](const DimFactor& factor) {
        return factor.wholeness == Wholeness::kHead;
      });
  return head && !part.empty() ? SizeOf(part) : 0;
}

// Whether a part has several heads of that width.
bool HasHeads(const DimPart& part, int64_t width) {
  int64_t behind = 1;
  for (auto factor = part.rbegin(); factor != part.rend(); ++factor) {
    if (factor->wholeness == Wholeness::kFree) return behind == width;
    behind *= factor->size;
  }
  return false;
}

// A key head is shared by those who share out its queries. What merely has to
// be whole somewhere stays cut: shared by all it would be a replicated weight.
bool MayBeShared(const PlannedCut& cut, absl::Span<const PlannedCut> cuts) {
  return std::all_of(
      cut.dim.parts().begin(), cut.dim.parts().end(), [&](const DimPart& part) {
        const int64_t width = OnlyHead(part);
        return width == 0 ||
               std::any_of(
                   cuts.begin(), cuts.end(), [&](const PlannedCut& other) {
                     return other.within == cut.within &&
                            std::any_of(other.dim.parts().begin(),
                                        other.dim.parts().end(),
                                        [width](const DimPart& queries) {
                                          return HasHeads(queries, width);
                                        });
                   });
      });
}

}  // namespace

std::vector<std::vector<Packing>> FindPackings(const EmittedProgram& program,
                                               absl::Span<const Value> values,
                                               const GraphModule& module,
                                               const DeviceMesh& mesh,
                                               const ResolvedPlan& plan) {
  Structures structures(program, values);
  structures.Follow();
  const std::vector<PlannedCut> cuts =
      CutsOf(program, module, mesh, plan, &structures);
  std::vector<std::vector<Packing>> ways;
  for (const auto few :
       {DimStructure::FewHeads::kShared, DimStructure::FewHeads::kNotShared}) {
    std::vector<Packing> way;
    for (const PlannedCut& cut : cuts) {
      if (!MayBeShared(cut, cuts)) continue;
      const auto blocks = cut.dim.BlocksOver(mesh.dim_size(cut.mesh_dim), few);
      if (!blocks.has_value() || blocks->empty() || *blocks == cut.blocks) {
        continue;
      }
      way.push_back({cut.parameter, cut.mesh_dim, cut.tensor_dim, *blocks});
    }
    if (!way.empty() && (ways.empty() || ways[0] != way)) {
      ways.push_back(std::move(way));
    }
  }
  return ways;
}

absl::StatusOr<CompiledProgram> CompileAndPack(const GraphModule& module,
                                               const DeviceMesh& mesh,
                                               const Signature& signature,
                                               const CompileOptions& options,
                                               ResolvedPlan* plan) {
  SP_ASSIGN_OR_RETURN(CompiledProgram best,
                      Compile(module, mesh, *plan, signature, options));
  const ResolvedPlan planned = *plan;
  const std::vector<std::vector<Packing>> ways = std::move(best.packings);
  for (const std::vector<Packing>& way : ways) {
    ResolvedPlan packed = Repacked(module, planned, way);
    SP_ASSIGN_OR_RETURN(CompiledProgram compiled,
                        Compile(module, mesh, packed, signature, options));
    if (Price(compiled, planned.data_parallel) >=
        Price(best, planned.data_parallel)) {
      continue;
    }
    *plan = std::move(packed);
    best = std::move(compiled);
  }
  return best;
}

}  // namespace shardplane
