// Products of a program under construction that are made in pieces.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/op_values.h"
#include "common/piece_ops.h"
#include "common/product_chunks.h"
#include "common/program_builder.h"

namespace shardplane {

// Writes the forward pass anew.
class ProgramBuilder::Chunker {
 public:
  Chunker(ProgramBuilder* builder, ProductChunks chunks)
      : builder_(*builder),
        old_(std::exchange(builder->program_.instructions, {})),
        added_(builder->AddedByBase()) {
    for (GatheredProducts& products : chunks.gathered) {
      dropped_.insert(products.gather);
      if (products.vary >= 0) dropped_.insert(products.vary);
      chunks_[products.segment].gathered.push_back(std::move(products));
    }
    for (ScatteredProduct& product : chunks.scattered) {
      dropped_.insert(product.scatter);
      chunks_[product.segment].scattered.push_back(product);
    }
  }

  void Run() {
    const std::vector<TapeEntry> tape = std::exchange(builder_.tape_, {});
    std::vector<int> place;  // of each old instruction
    for (int i = 0; i < static_cast<int>(old_.size()); ++i) {
      place.push_back(Size());
      if (dropped_.contains(i)) continue;
      const auto* run = std::get_if<RunSegment>(&old_[i]);
      if (run != nullptr && chunks_.contains(run->segment)) {
        Rewrite(run->segment);
      } else if (run != nullptr && sums_.contains(run->segment)) {
        EmitSums(run->segment);
      } else {
        builder_.program_.instructions.push_back(old_[i]);
      }
    }
    place.push_back(Size());
    for (RecomputedRange& range : builder_.recomputed_) {
      range.begin = place[range.begin];
      range.end = place[range.end];
    }
    builder_.unit_begin_ = Size();
    RewriteTape(tape);
  }

 private:
  struct Chunks {
    std::vector<GatheredProducts> gathered;
    std::vector<ScatteredProduct> scattered;
    std::vector<TapeEntry> before;  // what was written
    std::vector<TapeEntry> after;
  };

  // What becomes of one that is scattered: the op, and the pieces of its input.
  struct Scattered {
    ScatteredProduct product;
    Op op;
    std::vector<ValueId> inputs;
  };
  // One to which another term is added.
  struct Sum {
    Scattered scattered;
    AddedEntry added;
    std::vector<TapeEntry> instead;  // what was written
  };

  int Size() const {
    return static_cast<int>(builder_.program_.instructions.size());
  }
  const Redistribute& StepAt(int i) const {
    return std::get<Redistribute>(old_[i]);
  }
  const Op& OpAt(int segment, int op) const {
    return builder_.program_.segments[segment].ops[op];
  }

  void Rewrite(int segment) {
    Chunks& chunks = chunks_[segment];
    std::vector<Op> ops;
    std::set<int> moved;
    for (const GatheredProducts& products : chunks.gathered) {
      EmitGathered(products, &ops);
      moved.insert(products.ops.begin(), products.ops.end());
    }
    chunks.before = std::exchange(builder_.tape_, {});
    builder_.program_.instructions.push_back(RunSegment{segment});
    const std::vector<Op> old = builder_.program_.segments[segment].ops;
    for (const ScatteredProduct& product : chunks.scattered) {
      moved.insert(product.op);
    }
    for (int k = 0; k < static_cast<int>(old.size()); ++k) {
      if (!moved.contains(k)) ops.push_back(old[k]);
    }
    for (const ScatteredProduct& product : chunks.scattered) {
      const Op& op = old[product.op];
      const PieceOps::Parts split =
          Split(ValuesReadBy(op)[0], product.pieces, op.fqn);
      ops.insert(ops.end(), split.ops.begin(), split.ops.end());
      const Scattered scattered{product, op, split.pieces};
      const auto added = added_.find(StepAt(product.scatter).output);
      if (added == added_.end()) {
        EmitScattered(scattered);
      } else {
        sums_[added->second.segment] = {scattered, added->second};
      }
    }
    chunks.after = std::exchange(builder_.tape_, {});
    builder_.ReplaceOps(segment, std::move(ops));
  }

  PieceOps OpsOf(const std::string& fqn, bool requires_grad) {
    return PieceOps(
        [this, requires_grad](const Value& value) {
          return builder_.NewValue(value.name, value.type, value.spec,
                                   requires_grad);
        },
        fqn);
  }
  PieceOps::Parts Split(ValueId id, const Pieces& pieces,
                        const std::string& fqn) {
    const Value value = builder_.value(id);
    return OpsOf(fqn, builder_.requires_grad(id)).Split(id, value, pieces);
  }
  std::vector<Op> Join(const std::vector<ValueId>& parts, ValueId id,
                       const Pieces& pieces, const std::string& fqn) {
    const Value value = builder_.value(id);
    return OpsOf(fqn, builder_.requires_grad(id))
        .Join(parts, id, value, pieces);
  }

  // The op on a piece of its input. The other operands are whole.
  ValueId EmitPiece(Op op, ValueId input, const Pieces& pieces) {
    const ValueId whole = op.results[0];
    const Value piece =
        PieceOf(builder_.value(whole), pieces.dim, pieces.count);
    const Result result{piece.name, piece.type, piece.spec,
                        builder_.requires_grad(whole)};
    op.args[0] = {ValueRef{input}};
    op.results.clear();
    return builder_.EmitOp(std::move(op), {result})[0];
  }

  ValueId EmitStep(const Redistribute& step, ValueId input) {
    const auto& after =
        builder_.value(step.output).spec.placements[step.mesh_dim];
    return builder_.EmitMove(input, StepFrom(builder_.value(input).spec,
                                             step.kind, step.mesh_dim, after));
  }

  // Before the segment, which then joins them: `ops`.
  void EmitGathered(const GatheredProducts& products, std::vector<Op>* ops) {
    const Redistribute gather = StepAt(products.gather);
    std::vector<Op> linears;
    for (const int k : products.ops) {
      linears.push_back(OpAt(products.segment, k));
    }
    const PieceOps::Parts split =
        Split(gather.input, Alone(products.pieces), linears[0].fqn);
    AppendRecorded(split.ops);
    std::vector<std::vector<ValueId>> results(linears.size());
    for (const ValueId input : split.pieces) {
      const ValueId whole = EmitStep(gather, input);
      const ValueId varied =
          products.vary < 0
              ? whole
              : builder_.EmitVary(whole, StepAt(products.vary).mesh_dim);
      for (size_t k = 0; k < linears.size(); ++k) {
        const bool varies = ValuesReadBy(linears[k])[0] != gather.output;
        results[k].push_back(
            EmitPiece(linears[k], varies ? varied : whole, products.pieces));
      }
      builder_.CloseSegment();
    }
    for (size_t k = 0; k < linears.size(); ++k) {
      const std::vector<Op> joined = Join(results[k], linears[k].results[0],
                                          products.pieces, linears[k].fqn);
      ops->insert(ops->end(), joined.begin(), joined.end());
    }
  }

  // One piece, scattered.
  ValueId EmitScatteredPiece(const Scattered& scattered, ValueId input) {
    const Redistribute scatter = StepAt(scattered.product.scatter);
    return EmitStep(scatter,
                    EmitPiece(scattered.op, input, scattered.product.pieces));
  }

  // After the segment.
  void EmitScattered(const Scattered& scattered) {
    std::vector<ValueId> results;
    for (const ValueId input : scattered.inputs) {
      results.push_back(EmitScatteredPiece(scattered, input));
    }
    const ValueId whole = StepAt(scattered.product.scatter).output;
    AppendRecorded(Join(results, whole, Alone(scattered.product.pieces),
                        scattered.op.fqn));
  }

  // To each piece the bias is added, which has the last dim alone, when all
  // have begun to travel; the segment that added it to the whole joins them.
  // Backward each piece goes its way by itself.
  void EmitSums(int segment) {
    Sum& sum = sums_[segment];
    const Op add = OpAt(segment, 0);
    const Pieces& pieces = sum.scattered.product.pieces;
    std::vector<std::vector<TapeEntry>> tapes;
    std::vector<ValueId> bases;
    for (const ValueId input : sum.scattered.inputs) {
      bases.push_back(EmitScatteredPiece(sum.scattered, input));
      tapes.push_back(std::exchange(builder_.tape_, {}));
    }
    std::vector<ValueId> results;
    for (size_t i = 0; i < bases.size(); ++i) {
      const AddedEntry added = EmitAdded(add, bases[i], sum.added, pieces);
      results.push_back(added.sum);
      sum.instead.insert(sum.instead.end(), tapes[i].begin(), tapes[i].end());
      sum.instead.push_back(added);
    }
    sum.instead.push_back(SegmentEntry{segment});
    builder_.ReplaceOps(segment, Join(results, sum.added.sum, Alone(pieces),
                                      sum.scattered.op.fqn));
    builder_.program_.instructions.push_back(RunSegment{segment});
  }

  AddedEntry EmitAdded(Op add, ValueId base, const AddedEntry& of,
                       const Pieces& pieces) {
    const Value piece =
        PieceOf(builder_.value(of.sum), pieces.dim, pieces.count);
    const ValueId sum = builder_.NewValue(piece.name, piece.type, piece.spec,
                                          /*requires_grad=*/true);
    add.args[0] = {ValueRef{base}};
    add.results = {sum};
    const int segment =
        builder_.AppendSegment(Segment{.ops = {std::move(add)}});
    return {base, of.term, sum, of.cuts, segment};
  }

  // A rank's own pieces, one after the other.
  static Pieces Alone(Pieces pieces) {
    pieces.ranks = 1;
    return pieces;
  }

  void AppendRecorded(std::vector<Op> ops) {
    const int segment = builder_.AppendSegment(Segment{.ops = std::move(ops)});
    builder_.tape_.push_back(SegmentEntry{segment});
  }

  void RewriteTape(const std::vector<TapeEntry>& tape) {
    std::set<ValueId> gone;
    for (const int i : dropped_) gone.insert(StepAt(i).output);
    const auto append = [this](const std::vector<TapeEntry>& entries) {
      builder_.tape_.insert(builder_.tape_.end(), entries.begin(),
                            entries.end());
    };
    for (const TapeEntry& entry : tape) {
      if (const auto* added = std::get_if<AddedEntry>(&entry)) {
        const auto sum = sums_.find(added->segment);
        append(sum == sums_.end() ? std::vector<TapeEntry>{entry}
                                  : sum->second.instead);
        continue;
      }
      const auto* move = std::get_if<MoveEntry>(&entry);
      if (move != nullptr && gone.contains(move->step.output)) continue;
      const auto* run = std::get_if<SegmentEntry>(&entry);
      const auto found =
          run == nullptr ? chunks_.end() : chunks_.find(run->segment);
      if (found == chunks_.end()) {
        builder_.tape_.push_back(entry);
        continue;
      }
      append(found->second.before);
      builder_.tape_.push_back(entry);
      append(found->second.after);
    }
  }

  ProgramBuilder& builder_;
  const std::vector<Instruction> old_;
  const std::map<ValueId, AddedEntry> added_;  // by base
  std::map<int, Chunks> chunks_;               // by segment
  std::map<int, Sum> sums_;                    // by segment
  std::set<int> dropped_;                      // instructions
};

std::map<ValueId, ProgramBuilder::AddedEntry> ProgramBuilder::AddedByBase()
    const {
  std::map<ValueId, AddedEntry> added;
  for (const TapeEntry& entry : tape_) {
    const auto* sum = std::get_if<AddedEntry>(&entry);
    if (sum != nullptr) added[sum->base] = *sum;
  }
  return added;
}

// What runs again stays within. A sum that a bias is added to is not made
// itself, so nothing else may read it.
void ProgramBuilder::KeepWhole(ProductChunks* chunks) const {
  std::vector<int> run_at(program_.segments.size(), -1);
  std::vector<int> uses(program_.values.size(), 0);  // its making counts
  for (int i = 0; i < static_cast<int>(program_.instructions.size()); ++i) {
    const Instruction& instruction = program_.instructions[i];
    const auto* run = std::get_if<RunSegment>(&instruction);
    if (run != nullptr) run_at[run->segment] = i;
    for (const ValueId id : ValuesOf(program_, instruction)) ++uses[id];
  }
  const auto apart = [this](int a, int b) {
    return std::ranges::any_of(recomputed_, [&](const RecomputedRange& range) {
      const auto within = [&](int i) {
        return i >= range.begin && i < range.end;
      };
      return within(a) != within(b);
    });
  };
  const std::map<ValueId, AddedEntry> added = AddedByBase();
  std::erase_if(chunks->gathered, [&](const GatheredProducts& products) {
    return apart(products.gather, run_at[products.segment]);
  });
  std::erase_if(chunks->scattered, [&](const ScatteredProduct& product) {
    const int run = run_at[product.segment];
    if (apart(product.scatter, run)) return true;
    const auto sum = added.find(
        std::get<Redistribute>(program_.instructions[product.scatter]).output);
    return sum != added.end() &&
           (uses[sum->first] > 2 || apart(run_at[sum->second.segment], run));
  });
}

void ProgramBuilder::ChunkProducts(const std::vector<ValueId>& kept) {
  CloseSegment();
  GatherTogether();
  if (!options_.overlap.chunks) return;
  ProductChunks chunks = FindProductChunks(program_, kept, options_.link_costs);
  KeepWhole(&chunks);
  if (chunks.gathered.empty() && chunks.scattered.empty()) return;
  Chunker(this, std::move(chunks)).Run();
}

}  // namespace shardplane
