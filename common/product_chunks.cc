#include "common/product_chunks.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "common/op_values.h"
#include "common/tensor_spec.h"

namespace shardplane {
namespace {

constexpr int kCounts[] = {2, 4};

bool Contains(const std::vector<ValueId>& ids, ValueId id) {
  return std::ranges::find(ids, id) != ids.end();
}

class Finder {
 public:
  Finder(const ShardedProgram& program, const std::vector<ValueId>& kept,
         const LinkCosts& costs)
      : program_(program),
        costs_(costs),
        readers_(program.values.size()),
        maker_(program.values.size(), -1),
        kept_(program.values.size(), false) {
    for (const ValueId id : kept) kept_[id] = true;
    for (const ParameterBinding& p : program.parameters) {
      if (p.update >= 0) kept_[p.update] = true;
    }
    for (int i = 0; i < static_cast<int>(program.instructions.size()); ++i) {
      Note(i);
    }
  }

  ProductChunks Run() const {
    ProductChunks chunks;
    for (int i = 0; i < static_cast<int>(program_.instructions.size()); ++i) {
      const auto* step = std::get_if<Redistribute>(&program_.instructions[i]);
      if (step == nullptr) continue;
      if (step->kind == RedistributeKind::kAllGather) {
        if (auto found = GatheredBy(i, *step)) {
          chunks.gathered.push_back(*std::move(found));
        }
      } else if (step->kind == RedistributeKind::kReduceScatter) {
        if (auto found = ScatteredBy(i, *step)) {
          chunks.scattered.push_back(*found);
        }
      }
    }
    // What is gathered for one is not made in pieces twice.
    std::erase_if(chunks.scattered, [&](const ScatteredProduct& product) {
      return std::ranges::any_of(
          chunks.gathered, [&](const GatheredProducts& gathered) {
            return gathered.segment == product.segment &&
                   std::ranges::find(gathered.ops, product.op) !=
                       gathered.ops.end();
          });
    });
    return chunks;
  }

 private:
  void Note(int i) {
    const Instruction& instruction = program_.instructions[i];
    if (const auto* step = std::get_if<Redistribute>(&instruction)) {
      readers_[step->input].push_back(i);
    } else if (const auto* bucket = std::get_if<Bucket>(&instruction)) {
      for (const ValueId id : bucket->inputs) readers_[id].push_back(i);
    } else if (const auto* run = std::get_if<RunSegment>(&instruction)) {
      const Segment& segment = program_.segments[run->segment];
      for (const ValueId id : segment.inputs) readers_[id].push_back(i);
      for (const Op& op : segment.ops) {
        for (const ValueId id : op.results) maker_[id] = run->segment;
      }
    }
  }

  // The only instruction that reads these, `but` one; -1: none, several, or one
  // of them is kept.
  int OnlyReader(const std::vector<ValueId>& ids, int but = -1) const {
    int only = -1;
    for (const ValueId id : ids) {
      if (kept_[id]) return -1;
      for (const int reader : readers_[id]) {
        if (reader == but || reader == only) continue;
        if (only >= 0) return -1;
        only = reader;
      }
    }
    return only;
  }
  int SegmentAt(int i) const {
    if (i < 0) return -1;
    const auto* run = std::get_if<RunSegment>(&program_.instructions[i]);
    return run == nullptr ? -1 : run->segment;
  }

  std::optional<GatheredProducts> GatheredBy(int i,
                                             const Redistribute& step) const {
    GatheredProducts found{.gather = i};
    std::vector<ValueId> names = {step.output};
    for (const int reader : readers_[step.output]) {
      const auto* vary =
          std::get_if<Redistribute>(&program_.instructions[reader]);
      if (vary == nullptr || vary->kind != RedistributeKind::kAlias) continue;
      found.vary = reader;
      names = {step.output, vary->output};
    }
    found.segment = SegmentAt(OnlyReader(names, found.vary));
    if (found.segment < 0) return std::nullopt;
    const auto ops = LinearOpsOn(names, program_.segments[found.segment]);
    const auto pieces =
        PiecesOf(step, program_.values[step.input], step.from_dim);
    if (!ops || !pieces) return std::nullopt;
    found.ops = *ops;
    found.pieces = *pieces;
    return found;
  }

  // The ops of a segment that read one of `inputs`, if these are linear ops
  // that could run before all others.
  static std::optional<std::vector<int>> LinearOpsOn(
      const std::vector<ValueId>& inputs, const Segment& segment) {
    std::vector<int> ops;
    for (int k = 0; k < static_cast<int>(segment.ops.size()); ++k) {
      const Op& op = segment.ops[k];
      const std::vector<ValueId> read = ValuesReadBy(op);
      const auto uses = std::ranges::count_if(
          read, [&](ValueId id) { return Contains(inputs, id); });
      if (uses == 0) continue;
      const bool is_product = op.target == "aten.linear.default" && uses == 1 &&
                              Contains(inputs, read[0]) &&
                              std::ranges::all_of(read, [&](ValueId id) {
                                return Contains(segment.inputs, id);
                              });
      if (!is_product) return std::nullopt;
      ops.push_back(k);
    }
    return ops;
  }

  std::optional<ScatteredProduct> ScatteredBy(int i,
                                              const Redistribute& step) const {
    ScatteredProduct found{.scatter = i, .segment = maker_[step.input]};
    if (found.segment < 0 || OnlyReader({step.input}) != i) return std::nullopt;
    const std::vector<Op>& ops = program_.segments[found.segment].ops;
    const auto reads = [&](const Op& op) {
      return Contains(ValuesReadBy(op), step.input);
    };
    if (std::ranges::any_of(ops, reads)) return std::nullopt;
    const auto made_by = std::ranges::find_if(
        ops, [&](const Op& op) { return Contains(op.results, step.input); });
    if (made_by->target != "aten.linear.default") return std::nullopt;
    found.op = static_cast<int>(made_by - ops.begin());
    const Value& input = program_.values[ValuesReadBy(*made_by)[0]];
    const auto pieces = PiecesOf(step, input, step.to_dim);
    if (!pieces) return std::nullopt;
    found.pieces = *pieces;
    return found;
  }

  // Of the products' input; nullopt: that would not pay.
  std::optional<Pieces> PiecesOf(const Redistribute& step, const Value& input,
                                 int moved_dim) const {
    if (IsPacked(step)) return std::nullopt;
    const auto bytes = static_cast<double>(
        std::max(BytesOf(step.input), BytesOf(step.output)));
    const double beside =
        costs_.beside * BytesUs(costs_, step.kind,
                                program_.mesh.dim_size(step.mesh_dim), bytes);
    const auto best_of = [&](auto in_pieces) {
      std::optional<Pieces> best;
      double most = 0;
      for (const int count : kCounts) {
        const double saved =
            beside * (count - 1) / count - costs_.latency_us * (count - 1);
        const std::optional<Pieces> pieces = in_pieces(count);
        if (!pieces || saved <= most) continue;
        most = saved;
        best = pieces;
      }
      return best;
    };
    const auto alone =
        best_of([&](int count) { return InPieces(input, count, moved_dim); });
    if (alone) return alone;
    return best_of([&](int count) {
      return AcrossRanks(input, count, moved_dim, step.mesh_dim);
    });
  }
  // Blocks come apart where they are gathered or scattered.
  bool IsPacked(const Redistribute& step) const {
    const auto blocks = [&](ValueId id) {
      return BlocksOf(program_.values[id].spec.placements[step.mesh_dim]);
    };
    return !blocks(step.input).empty() || !blocks(step.output).empty();
  }
  int64_t BytesOf(ValueId id) const {
    const Value& value = program_.values[id];
    return LargestBytes(value.type, value.spec, program_.mesh);
  }

  // Of a dim that does not travel, equal ones on each rank.
  std::optional<Pieces> InPieces(const Value& input, int count,
                                 int moved_dim) const {
    const int last = static_cast<int>(input.type.shape.size()) - 1;
    for (int d = 0; d < last; ++d) {
      if (d != moved_dim && Divides(input, d, count, CutsOf(input.spec, d))) {
        return Pieces{d, count};
      }
    }
    return std::nullopt;
  }
  // Of each rank's part of the one that travels, which nothing else cuts.
  std::optional<Pieces> AcrossRanks(const Value& input, int count,
                                    int moved_dim, int mesh_dim) const {
    const int last = static_cast<int>(input.type.shape.size()) - 1;
    const std::vector<int> cuts = CutsOf(input.spec, moved_dim);
    const bool alone = cuts.empty() || cuts == std::vector<int>{mesh_dim};
    if (moved_dim == last || !alone ||
        !Divides(input, moved_dim, count, {mesh_dim})) {
      return std::nullopt;
    }
    return Pieces{moved_dim, count, program_.mesh.dim_size(mesh_dim)};
  }
  bool Divides(const Value& value, int dim, int count,
               const std::vector<int>& cuts) const {
    int64_t parts = count;
    for (const int m : cuts) parts *= program_.mesh.dim_size(m);
    const DimCuts at = CutsOfDim(value.type.shape, value.spec, dim);
    return at.blocks.empty() && at.extent > 0 && at.extent % parts == 0;
  }

  const ShardedProgram& program_;
  const LinkCosts& costs_;
  std::vector<std::vector<int>> readers_;  // instructions, by value
  std::vector<int> maker_;                 // segment, by value
  std::vector<bool> kept_;
};

}  // namespace

ProductChunks FindProductChunks(const ShardedProgram& forward,
                                const std::vector<ValueId>& kept,
                                const LinkCosts& costs) {
  return Finder(forward, kept, costs).Run();
}

}  // namespace shardplane
