#include "common/segment_memory.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/op_values.h"

namespace shardplane {
namespace {

bool Is(const Op& op, absl::string_view name) { return op.target == name; }

int WrappedDim(const Op& op, size_t arg, int rank) {
  const auto* dim = op.args.size() > arg
                        ? std::get_if<int64_t>(&op.args[arg].value)
                        : nullptr;
  const int d = dim == nullptr ? 0 : static_cast<int>(*dim);
  return d < 0 ? d + rank : d;
}

std::vector<int> OrderOf(const HeldValue& value, int rank) {
  std::vector<int> order = value.order;
  if (static_cast<int>(order.size()) != rank) {
    order.resize(rank);
    std::iota(order.begin(), order.end(), 0);
  }
  return order;
}

// Whether the tensor lies in memory as its dims stand; dims of size 1 lie
// anywhere.
bool InOrder(const HeldValue& value, const Shape& shape) {
  int last = -1;
  for (const int dim : value.order) {
    if (dim < static_cast<int>(shape.size()) && shape[dim] == 1) continue;
    if (dim < last) return false;
    last = dim;
  }
  return true;
}

// A batched product wants its batch dims in one run, the last two either way.
bool BatchInOrder(const HeldValue& value, const Shape& shape) {
  if (value.order.empty() || shape.size() < 3) return true;
  HeldValue batch;
  for (const int dim : value.order) {
    batch.order.push_back(std::min(dim, static_cast<int>(shape.size()) - 2));
  }
  return InOrder(batch, shape);
}

// result dim i is the operand's dim from[i].
std::vector<int> PermutedOrder(const std::vector<int>& order,
                               const std::vector<int>& from) {
  std::vector<int> to(from.size());
  for (size_t i = 0; i < from.size(); ++i) to[from[i]] = static_cast<int>(i);
  std::vector<int> result;
  for (const int dim : order) result.push_back(to[dim]);
  return result;
}

std::vector<int> PermutationOf(const Op& op, int rank) {
  std::vector<int> from(rank);
  std::iota(from.begin(), from.end(), 0);
  if (Is(op, "aten.transpose.int")) {
    std::swap(from[WrappedDim(op, 1, rank)], from[WrappedDim(op, 2, rank)]);
  } else if (Is(op, "aten.permute.default")) {
    const auto* dims = std::get_if<ProgramArgumentList>(&op.args[1].value);
    for (int i = 0; dims != nullptr && i < rank; ++i) {
      const auto* dim = std::get_if<int64_t>(&(*dims)[i].value);
      if (dim != nullptr) {
        from[i] = static_cast<int>(*dim < 0 ? *dim + rank : *dim);
      }
    }
  } else if (rank >= 2) {  // t, mT, numpy_T of two dims
    std::swap(from[rank - 1], from[rank - 2]);
  }
  return from;
}

bool Permutes(const Op& op) {
  return Is(op, "aten.transpose.int") || Is(op, "aten.permute.default") ||
         Is(op, "aten.t.default") || Is(op, "aten.mT.default") ||
         Is(op, "aten.numpy_T.default");
}

}  // namespace

// Gives each value of the segment its place.
void SegmentMemory::FindPlaces() {
  if (ids_.empty()) {
    ids_ = segment_.inputs;
    for (const Op& op : segment_.ops) {
      ids_.insert(ids_.end(), op.results.begin(), op.results.end());
    }
  }
  for (size_t i = 0; i < ids_.size(); ++i) {
    places_[ids_[i]] = static_cast<Place>(i);
  }
}

int64_t SegmentMemory::Bytes(Place place) const {
  return NumElements(ShapeOf(place)) *
         ByteSize(program_.values[IdOf(place)].type.dtype);
}

int64_t SegmentMemory::Scaled(double factor, Place place) const {
  return static_cast<int64_t>(factor * static_cast<double>(Bytes(place)));
}

HeldValue SegmentMemory::ResultOf(const Node& node, Place result) {
  const Op& op = *node.op;
  const OpMemory& memory = *node.memory;
  if (node.operands.empty()) return {ledger_->Make(Bytes(result))};
  const HeldValue& first = frame_[node.operands[0]];
  const Shape& shape = ShapeOf(node.operands[0]);
  const int rank = static_cast<int>(shape.size());
  bool view = memory.result == ResultMemory::kView ||
              memory.result == ResultMemory::kPart;
  if (memory.result == ResultMemory::kViewOrCopy) {
    view = InOrder(first, shape);
  }
  if (!view) {
    HeldValue made{ledger_->Make(Bytes(result))};
    // The kernel writes [batch, sequence, head, width].
    if (memory.keeps == Keep::kOperandsAndResult && rank == 4) {
      made.order = {0, 2, 1, 3};
    } else if (memory.result == ResultMemory::kNew && !IsProduct(memory) &&
               ShapeOf(result) == shape) {
      made.order = first.order;  // what goes by element keeps the order
    }
    return made;
  }
  HeldValue same{ledger_->Hold(first.block)};
  if (Permutes(op)) {
    same.order = PermutedOrder(OrderOf(first, rank), PermutationOf(op, rank));
  } else if (ShapeOf(result) == shape) {
    same.order = first.order;
  }
  return same;
}

bool SegmentMemory::AsksForGradient(const Node& node) const {
  return !Is(*node.op, "aten.detach.default") &&
         std::any_of(node.operands.begin(), node.operands.end(),
                     [this](Place place) { return Asks(place); });
}

MemoryLedger::Block SegmentMemory::KeptOperand(const Node& node, size_t index) {
  const Place place = node.operands[index];
  const HeldValue& value = frame_[place];
  const bool batched =
      Is(*node.op, "aten.matmul.default") || Is(*node.op, "aten.bmm.default");
  // The product works on a copy, and that is what is kept.
  if (batched && !BatchInOrder(value, ShapeOf(place))) {
    return ledger_->Make(Bytes(place));
  }
  return ledger_->Hold(value.block);
}

void SegmentMemory::KeepFor(Node* node) {
  const OpMemory& memory = *node->memory;
  std::vector<bool> asks;
  for (const Place place : node->operands) asks.push_back(Asks(place));
  for (size_t i = 0; i < node->operands.size(); ++i) {
    if (KeepsOperand(memory, i, asks)) {
      node->kept.push_back(KeptOperand(*node, i));
    }
  }
  const Place result = node->results[0];
  if (KeepsResult(memory)) {
    node->kept.push_back(ledger_->Hold(frame_[result].block));
  }
  if (memory.mask_bytes > 0) {
    node->kept.push_back(
        ledger_->Make(memory.mask_bytes * NumElements(ShapeOf(result))));
  }
  if (memory.extra_kept > 0) {
    node->kept.push_back(
        ledger_->Make(Scaled(memory.extra_kept, node->operands[0])));
  }
}

void SegmentMemory::Run(Node* node, bool record) {
  for (const Place place : node->results) {
    frame_[place] = ResultOf(*node, place);
  }
  if (!node->operands.empty()) {
    ledger_->Touch(Scaled(node->memory->forward_scratch, node->operands[0]));
  }
  if (!record || !AsksForGradient(*node)) return;
  for (const Place place : node->results) {
    if (CarriesGradient(program_.values[IdOf(place)].type.dtype)) {
      asking_[place] = true;
    }
  }
  KeepFor(node);
  if (IsLate(*node)) {
    late_inputs_.push_back(ledger_->Hold(frame_[node->operands[0]].block));
  }
  nodes_.push_back(std::move(*node));
}

void SegmentMemory::RunOps(bool record) {
  std::vector<Node> ops;
  std::vector<const Op*> last_use(ids_.size(), nullptr);
  for (const Op& op : segment_.ops) {
    Node node{&op, &MemoryOf(op.target), ValuesReadBy(op), op.results, {}};
    for (std::vector<Place>* values : {&node.operands, &node.results}) {
      for (int& value : *values) {
        value = PlaceOf(value);
        last_use[value] = &op;
      }
    }
    ops.push_back(std::move(node));
  }
  for (const ValueId id : segment_.outputs) last_use[PlaceOf(id)] = nullptr;
  for (Node& node : ops) {
    const Op* op = node.op;
    std::vector<Place> done = node.operands;
    done.insert(done.end(), node.results.begin(), node.results.end());
    Run(&node, record);
    for (const Place place : done) {
      if (last_use[place] != op) continue;
      ledger_->Drop(std::exchange(frame_[place], {}).block);
      last_use[place] = nullptr;
    }
  }
}

void SegmentMemory::Forward(bool record, std::vector<HeldValue>* held) {
  FindPlaces();
  frame_.resize(ids_.size());
  asking_.resize(ids_.size());
  for (size_t i = 0; i < segment_.inputs.size(); ++i) {
    frame_[i] = (*held)[segment_.inputs[i]];
    ledger_->Hold(frame_[i].block);
  }
  if (record) {
    for (const ValueId id : segment_.differentiable_inputs) {
      asking_[PlaceOf(id)] = !late_.contains(id);
    }
  }
  RunOps(record);
  for (const ValueId id : segment_.outputs) {
    (*held)[id] = frame_[PlaceOf(id)];
    ledger_->Hold((*held)[id].block);
  }
  for (const HeldValue& value : frame_) ledger_->Drop(value.block);
  frame_.clear();
}

// Whether the gradient of its weight comes after the backward.
bool SegmentMemory::IsLate(const Node& node) const {
  return node.operands.size() > 1 && late_.contains(IdOf(node.operands[1])) &&
         Is(*node.op, "aten.linear.default");
}

void SegmentMemory::AddGradient(Place place, Block block) {
  std::optional<Block>& gradient = gradients_[place];
  if (!gradient.has_value()) {
    gradient = block;
    return;
  }
  if (*gradient == MemoryLedger::kNone || ledger_->IsShared(*gradient)) {
    const Block sum = MakeGradient(place);
    ledger_->Drop(*gradient);
    gradient = sum;
  }
  ledger_->Drop(block);
}

MemoryLedger::Block SegmentMemory::MakeGradient(Place place) {
  return ledger_->Make(Bytes(place),
                       is_parameter_[IdOf(place)]
                           ? MemoryLedger::Kind::kParameterGradient
                           : MemoryLedger::Kind::kActivation);
}

MemoryLedger::Block SegmentMemory::GradientOf(const Node& node, Place operand,
                                              Block reached) {
  const OpMemory& memory = *node.memory;
  const Place result = node.results[0];
  const bool same = ShapeOf(operand) == ShapeOf(result);
  // One number, expanded.
  if (Is(*node.op, "aten.sum.default")) return MemoryLedger::kNone;
  if (memory.result == ResultMemory::kView ||
      memory.result == ResultMemory::kViewOrCopy ||
      (memory.passes_gradient && same)) {
    return ledger_->Hold(reached);
  }
  const Block made = MakeGradient(operand);
  // By element it is made as large as the result, and then summed.
  if (!same && memory.keeps == Keep::kProduct && !IsProduct(memory)) {
    ledger_->Touch(Bytes(result));
  }
  return made;
}

void SegmentMemory::RunBack(Node* node) {
  std::vector<Block> reached;
  for (const Place place : node->results) {
    const std::optional<Block> gradient =
        std::exchange(gradients_[place], std::nullopt);
    if (gradient.has_value()) reached.push_back(*gradient);
  }
  if (!reached.empty()) {
    if (IsLate(*node)) late_gradients_.push_back(ledger_->Hold(reached[0]));
    ledger_->Touch(Scaled(node->memory->backward_scratch, node->operands[0]));
    // A product does not work on a gradient that is one number, expanded.
    if (IsProduct(*node->memory) && reached[0] == MemoryLedger::kNone) {
      ledger_->Touch(Bytes(node->results[0]));
    }
    std::vector<std::pair<Place, Block>> made;
    for (const Place place : node->operands) {
      if (!Asks(place)) continue;
      made.emplace_back(place, GradientOf(*node, place, reached[0]));
    }
    for (const auto& [place, block] : made) AddGradient(place, block);
  }
  for (const Block block : reached) ledger_->Drop(block);
  for (const Block block : node->kept) ledger_->Drop(block);
  node->kept.clear();
}

std::vector<MemoryLedger::Block> SegmentMemory::Backward(
    absl::Span<const Block> output_gradients) {
  FindPlaces();
  gradients_.resize(ids_.size());
  for (size_t i = 0; i < output_gradients.size(); ++i) {
    AddGradient(PlaceOf(segment_.differentiable_outputs[i]),
                ledger_->Hold(output_gradients[i]));
  }
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    RunBack(&*node);
  }
  nodes_.clear();
  std::vector<Block> result;
  for (const ValueId id : segment_.differentiable_inputs) {
    if (late_.contains(id)) {
      result.push_back(MemoryLedger::kNone);
      continue;
    }
    const Place place = PlaceOf(id);
    const std::optional<Block> gradient =
        std::exchange(gradients_[place], std::nullopt);
    result.push_back(gradient.has_value() ? *gradient : MakeGradient(place));
  }
  for (const std::optional<Block>& gradient : gradients_) {
    if (gradient.has_value()) ledger_->Drop(*gradient);
  }
  gradients_.clear();
  return result;
}

std::vector<MemoryLedger::Block> SegmentMemory::WeightGradients(
    absl::Span<const ValueId> weights) {
  FindPlaces();
  std::vector<Block> made;
  for (const ValueId id : weights) made.push_back(MakeGradient(PlaceOf(id)));
  for (std::vector<Block>* held : {&late_inputs_, &late_gradients_}) {
    for (const Block block : *held) ledger_->Drop(block);
    held->clear();
  }
  return made;
}

}  // namespace shardplane
