#include "common/segment_memory.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <variant>
#include <vector>

#include "common/op_values.h"

namespace shardplane {
namespace {

bool Is(const Op& op, absl::string_view name) { return op.target == name; }

bool IsProduct(const Op& op) {
  return MemoryOf(op.target).keeps == Keep::kProduct &&
         !Is(op, "aten.mul.Tensor") && !Is(op, "aten.mul.Scalar");
}

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

int64_t SegmentMemory::Bytes(ValueId id) const {
  return NumElements(shapes_[id]) * ByteSize(program_.values[id].type.dtype);
}

int64_t SegmentMemory::Scaled(double factor, ValueId id) const {
  return static_cast<int64_t>(factor * static_cast<double>(Bytes(id)));
}

HeldValue SegmentMemory::ResultOf(const Op& op, const OpMemory& memory,
                                  absl::Span<const ValueId> operands,
                                  ValueId result) {
  if (operands.empty()) return {ledger_->Make(Bytes(result))};
  const HeldValue& first = frame_[operands[0]];
  const int rank = static_cast<int>(shapes_[operands[0]].size());
  bool view = memory.result == ResultMemory::kView ||
              memory.result == ResultMemory::kPart;
  if (memory.result == ResultMemory::kViewOrCopy) {
    view = InOrder(first, shapes_[operands[0]]);
  }
  if (!view) {
    HeldValue made{ledger_->Make(Bytes(result))};
    // The kernel writes [batch, sequence, head, width].
    if (memory.keeps == Keep::kOperandsAndResult && rank == 4) {
      made.order = {0, 2, 1, 3};
    } else if (memory.result == ResultMemory::kNew && !IsProduct(op) &&
               shapes_[result] == shapes_[operands[0]]) {
      made.order = first.order;  // what goes by element keeps the order
    }
    return made;
  }
  HeldValue same{ledger_->Hold(first.block)};
  if (Permutes(op)) {
    same.order = PermutedOrder(OrderOf(first, rank), PermutationOf(op, rank));
  } else if (shapes_[result] == shapes_[operands[0]]) {
    same.order = first.order;
  }
  return same;
}

bool SegmentMemory::AsksForGradient(const Op& op,
                                    absl::Span<const ValueId> operands) {
  return !Is(op, "aten.detach.default") &&
         std::any_of(operands.begin(), operands.end(),
                     [this](ValueId id) { return Asks(id); });
}

MemoryLedger::Block SegmentMemory::KeptOperand(const Node& node, size_t index) {
  const ValueId id = node.operands[index];
  const HeldValue& value = frame_[id];
  const bool batched =
      Is(*node.op, "aten.matmul.default") || Is(*node.op, "aten.bmm.default");
  // The product works on a copy, and that is what is kept.
  if (batched && !BatchInOrder(value, shapes_[id])) {
    return ledger_->Make(Bytes(id));
  }
  return ledger_->Hold(value.block);
}

// Whether an operand of a product other than `index` asks for a gradient; a
// term that is merely added is none.
bool SegmentMemory::AnotherAsks(const Node& node, size_t index) const {
  const bool first_is_added = Is(*node.op, "aten.addmm.default") ||
                              Is(*node.op, "aten.baddbmm.default");
  const size_t begin = first_is_added ? 1 : 0;
  const size_t count = node.operands.size();
  const size_t end = IsProduct(*node.op) ? std::min(count, begin + 2) : count;
  if (index < begin || index >= end) return false;
  for (size_t k = begin; k < end; ++k) {
    if (k != index && Asks(node.operands[k])) return true;
  }
  return false;
}

bool SegmentMemory::Keeps(const Node& node, size_t index) const {
  switch (node.memory->keeps) {
    case Keep::kNothing:
    case Keep::kResult:
      return false;
    case Keep::kFirst:
    case Keep::kFirstAndResult:
      return index == 0;
    case Keep::kSecond:
      return index == 1;
    case Keep::kOperands:
    case Keep::kOperandsAndResult:
      return true;
    case Keep::kProduct:
      return AnotherAsks(node, index);
    case Keep::kQuotient:
      return index == 1 || (node.operands.size() > 1 && Asks(node.operands[1]));
  }
  return false;
}

void SegmentMemory::KeepFor(Node* node) {
  const OpMemory& memory = *node->memory;
  for (size_t i = 0; i < node->operands.size(); ++i) {
    if (Keeps(*node, i)) node->kept.push_back(KeptOperand(*node, i));
  }
  const ValueId result = node->op->results[0];
  if (memory.keeps == Keep::kResult || memory.keeps == Keep::kFirstAndResult ||
      memory.keeps == Keep::kOperandsAndResult) {
    node->kept.push_back(ledger_->Hold(frame_[result].block));
  }
  if (memory.mask_bytes > 0) {
    node->kept.push_back(
        ledger_->Make(memory.mask_bytes * NumElements(shapes_[result])));
  }
  if (memory.extra_kept > 0) {
    node->kept.push_back(
        ledger_->Make(Scaled(memory.extra_kept, node->operands[0])));
  }
}

void SegmentMemory::Run(const Op& op, bool record) {
  const OpMemory& memory = MemoryOf(op.target);
  const std::vector<ValueId> operands = ValuesReadBy(op);
  for (const ValueId id : op.results) {
    HeldValue made = ResultOf(op, memory, operands, id);
    frame_[id] = std::move(made);
  }
  if (!operands.empty()) {
    ledger_->Touch(Scaled(memory.forward_scratch, operands[0]));
  }
  if (!record || !AsksForGradient(op, operands)) return;
  Node node{&op, &memory, operands, {}};
  for (const ValueId id : op.results) {
    if (CarriesGradient(program_.values[id].type.dtype)) asking_.insert(id);
  }
  KeepFor(&node);
  nodes_.push_back(std::move(node));
}

void SegmentMemory::RunOps(bool record) {
  absl::flat_hash_map<ValueId, const Op*> last_use;
  for (const Op& op : segment_.ops) {
    for (const ValueId id : ValuesReadBy(op)) last_use[id] = &op;
    for (const ValueId id : op.results) last_use[id] = &op;
  }
  for (const ValueId id : segment_.outputs) last_use.erase(id);
  for (const Op& op : segment_.ops) {
    Run(op, record);
    std::vector<ValueId> done = ValuesReadBy(op);
    done.insert(done.end(), op.results.begin(), op.results.end());
    for (const ValueId id : done) {
      const auto last = last_use.find(id);
      if (last == last_use.end() || last->second != &op) continue;
      ledger_->Drop(frame_[id].block);
      frame_.erase(id);
      last_use.erase(last);
    }
  }
}

void SegmentMemory::Forward(bool record, std::vector<HeldValue>* held) {
  for (const ValueId id : segment_.inputs) {
    frame_[id] = (*held)[id];
    ledger_->Hold(frame_[id].block);
  }
  if (record) {
    asking_.insert(segment_.differentiable_inputs.begin(),
                   segment_.differentiable_inputs.end());
  }
  RunOps(record);
  for (const ValueId id : segment_.outputs) {
    (*held)[id] = frame_[id];
    ledger_->Hold((*held)[id].block);
  }
  if (record) {
    for (const ValueId id : segment_.differentiable_inputs) {
      recording_.push_back(ledger_->Hold((*held)[id].block));
    }
    for (const ValueId id : segment_.differentiable_outputs) {
      recording_.push_back(ledger_->Hold(frame_[id].block));
    }
  }
  for (const auto& [id, value] : frame_) ledger_->Drop(value.block);
  frame_.clear();
}

void SegmentMemory::AddGradient(ValueId id, Block block) {
  const auto [at, is_new] = gradients_.try_emplace(id, block);
  if (is_new) return;
  if (at->second == MemoryLedger::kNone || ledger_->IsShared(at->second)) {
    const Block sum = MakeGradient(id);
    ledger_->Drop(at->second);
    at->second = sum;
  }
  ledger_->Drop(block);
}

MemoryLedger::Block SegmentMemory::MakeGradient(ValueId id) {
  return ledger_->Make(Bytes(id), is_parameter_[id]
                                      ? MemoryLedger::Kind::kParameterGradient
                                      : MemoryLedger::Kind::kActivation);
}

MemoryLedger::Block SegmentMemory::GradientOf(const Node& node, ValueId id,
                                              Block reached) {
  const OpMemory& memory = *node.memory;
  const ValueId result = node.op->results[0];
  const bool same = shapes_[id] == shapes_[result];
  // One number, expanded.
  if (Is(*node.op, "aten.sum.default")) return MemoryLedger::kNone;
  if (memory.result == ResultMemory::kView ||
      memory.result == ResultMemory::kViewOrCopy ||
      (memory.passes_gradient && same)) {
    return ledger_->Hold(reached);
  }
  const Block made = MakeGradient(id);
  // By element it is made as large as the result, and then summed.
  if (!same && memory.keeps == Keep::kProduct && !IsProduct(*node.op)) {
    ledger_->Touch(Bytes(result));
  }
  return made;
}

void SegmentMemory::RunBack(Node* node) {
  std::vector<Block> reached;
  for (const ValueId id : node->op->results) {
    const auto at = gradients_.find(id);
    if (at == gradients_.end()) continue;
    reached.push_back(at->second);
    gradients_.erase(at);
  }
  if (!reached.empty()) {
    ledger_->Touch(Scaled(node->memory->backward_scratch, node->operands[0]));
    // A product does not work on a gradient that is one number, expanded.
    if (IsProduct(*node->op) && reached[0] == MemoryLedger::kNone) {
      ledger_->Touch(Bytes(node->op->results[0]));
    }
    std::vector<std::pair<ValueId, Block>> made;
    for (const ValueId id : node->operands) {
      if (Asks(id)) made.emplace_back(id, GradientOf(*node, id, reached[0]));
    }
    for (const auto& [id, block] : made) AddGradient(id, block);
  }
  for (const Block block : reached) ledger_->Drop(block);
  for (const Block block : node->kept) ledger_->Drop(block);
  node->kept.clear();
}

std::vector<MemoryLedger::Block> SegmentMemory::Backward(
    absl::Span<const Block> output_gradients) {
  for (size_t i = 0; i < output_gradients.size(); ++i) {
    AddGradient(segment_.differentiable_outputs[i],
                ledger_->Hold(output_gradients[i]));
  }
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    RunBack(&*node);
  }
  nodes_.clear();
  std::vector<Block> result;
  for (const ValueId id : segment_.differentiable_inputs) {
    const auto at = gradients_.find(id);
    if (at == gradients_.end()) {
      result.push_back(MakeGradient(id));
    } else {
      result.push_back(at->second);
      gradients_.erase(at);
    }
  }
  for (const auto& [id, block] : gradients_) ledger_->Drop(block);
  gradients_.clear();
  for (const Block block : recording_) ledger_->Drop(block);
  recording_.clear();
  return result;
}

}  // namespace shardplane
