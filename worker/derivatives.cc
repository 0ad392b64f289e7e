#include "worker/derivatives.h"

#include <utility>

#include "ATen/ExpandUtils.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/threshold_backward.h"
#include "ATen/ops/zeros_like.h"
#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "c10/core/impl/LocalDispatchKeySet.h"
#include "common/op_values.h"
#include "worker/graph_walk.h"

namespace shardplane {
namespace {

using Gradients = std::array<at::Tensor, kMaxOperands>;

// Of linear(x, w[, b]), x a matrix: as of mm's operands, that with the weight
// transposed lies column by column.
void OfLinear(const DerivedOp& op, const KeptOp& kept, const at::Tensor& g,
              Gradients& out) {
  if (op.wanted[0]) {
    const at::Tensor& w = kept.operands[1];
    out[0] = kept.by_columns ? w.t().mm(g.t()).t() : g.mm(w);
  }
  if (op.wanted[1]) out[1] = g.t().mm(kept.operands[0]);
  if (op.wanted[2]) out[2] = g;
}

void OfRelu(const DerivedOp&, const KeptOp& kept, const at::Tensor& g,
            Gradients& out) {
  out[0] = at::threshold_backward(g, kept.result, 0);
}

void OfAdd(const DerivedOp& op, const KeptOp&, const at::Tensor& g,
           Gradients& out) {
  if (op.wanted[0]) out[0] = g;
  if (op.wanted[1]) out[1] = g;
}

void OfSub(const DerivedOp& op, const KeptOp&, const at::Tensor& g,
           Gradients& out) {
  if (op.wanted[0]) out[0] = g;
  if (op.wanted[1]) out[1] = g.neg();
}

void OfMul(const DerivedOp& op, const KeptOp& kept, const at::Tensor& g,
           Gradients& out) {
  if (op.wanted[0]) out[0] = g.mul(kept.operands[1]);
  if (op.wanted[1]) out[1] = g.mul(kept.operands[0]);
}

void OfPow(const DerivedOp& op, const KeptOp& kept, const at::Tensor& g,
           Gradients& out) {
  const at::Tensor& x = kept.operands[0];
  const auto by = [&](auto exponent) {
    return g.mul(x.pow(exponent - 1).mul(exponent));
  };
  out[0] = op.scalar.equal(0)            ? at::zeros_like(x)
           : op.scalar.isIntegral(false) ? by(op.scalar.toLong())
                                         : by(op.scalar.toDouble());
}

void OfSum(const DerivedOp&, const KeptOp& kept, const at::Tensor& g,
           Gradients& out) {
  out[0] = g.expand(kept.sizes[0]);
}

void OfMean(const DerivedOp&, const KeptOp& kept, const at::Tensor& g,
            Gradients& out) {
  out[0] = g.expand(kept.sizes[0]).div(c10::multiply_integers(kept.sizes[0]));
}

}  // namespace

enum class Keeps { kNothing, kOperand, kOtherOperand, kResult };

struct DerivedOp::Row {
  absl::string_view target;
  int operands = 0;  // at most
  Keeps keeps = Keeps::kNothing;
  void (*formula)(const DerivedOp&, const KeptOp&, const at::Tensor&,
                  Gradients&) = nullptr;
};

namespace {

constexpr DerivedOp::Row kRows[] = {
    {"aten.linear.default", 3, Keeps::kOtherOperand, OfLinear},
    {"aten.relu.default", 1, Keeps::kResult, OfRelu},
    {"aten.add.Tensor", 2, Keeps::kNothing, OfAdd},
    {"aten.sub.Tensor", 2, Keeps::kNothing, OfSub},
    {"aten.mul.Tensor", 2, Keeps::kOtherOperand, OfMul},
    {"aten.pow.Tensor_Scalar", 1, Keeps::kOperand, OfPow},
    {"aten.mean.default", 1, Keeps::kNothing, OfMean},
    {"aten.sum.default", 1, Keeps::kNothing, OfSum},
};

// Whether the formula reads operand `k`.
bool KeepsOperand(const DerivedOp& op, int k) {
  switch (op.row->keeps) {
    case Keeps::kOperand:
      return k == 0;
    case Keeps::kOtherOperand:
      return k < 2 && op.wanted[1 - k];
    default:
      return false;
  }
}

// The row of an op in the form that its formula is for.
const DerivedOp::Row* RowOf(const Op& op, absl::Span<const Value> values) {
  const auto row = absl::c_find_if(
      kRows, [&](const auto& each) { return each.target == op.target; });
  if (row == std::end(kRows) || !op.kwargs.empty() || op.results.size() != 1)
    return nullptr;
  const std::vector<ValueId> read = ValuesReadBy(op);
  const bool has_scalar = row->formula == OfPow;
  if (static_cast<int>(read.size()) > row->operands || read.empty() ||
      op.args.size() != read.size() + (has_scalar ? 1 : 0)) {
    return nullptr;
  }
  if (row->operands == 2 && read.size() != 2) return nullptr;
  const DType dtype = values[op.results[0]].type.dtype;
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64) return nullptr;
  if (absl::c_any_of(
          read, [&](ValueId id) { return values[id].type.dtype != dtype; })) {
    return nullptr;
  }
  const bool matrices = absl::c_all_of(
      absl::MakeConstSpan(read).first(read.size() > 1 ? 2 : 1),
      [&](ValueId id) { return values[id].type.shape.size() == 2; });
  if (row->formula == OfLinear && !matrices) return nullptr;
  return row;
}

std::optional<c10::Scalar> ScalarOf(const Op& op) {
  for (const ProgramArgument& argument : op.args) {
    if (const auto* i = std::get_if<int64_t>(&argument.value)) return *i;
    if (const auto* d = std::get_if<double>(&argument.value)) return *d;
  }
  return std::nullopt;
}

}  // namespace

std::optional<DerivedOps> DerivedOps::Create(
    const Segment& segment, absl::Span<const Value> values,
    const std::vector<ValueId>& late,
    absl::FunctionRef<Slot(ValueId)> slot_of) {
  absl::flat_hash_set<ValueId> asking(segment.differentiable_inputs.begin(),
                                      segment.differentiable_inputs.end());
  DerivedOps ops;
  for (const Op& op : segment.ops) {
    ops.index_.push_back(-1);
    const std::vector<ValueId> read = ValuesReadBy(op);
    if (absl::c_none_of(read,
                        [&](ValueId id) { return asking.contains(id); })) {
      continue;
    }
    DerivedOp derived{.row = RowOf(op, values), .result = kNoSlot};
    if (derived.row == nullptr) return std::nullopt;
    if (derived.row->formula == OfPow) {
      const std::optional<c10::Scalar> scalar = ScalarOf(op);
      if (!scalar.has_value()) return std::nullopt;
      derived.scalar = *scalar;
    }
    derived.operands.fill(kNoSlot);
    for (size_t i = 0; i < read.size(); ++i) {
      derived.operands[i] = slot_of(read[i]);
      derived.wanted[i] =
          asking.contains(read[i]) && !absl::c_linear_search(late, read[i]);
    }
    derived.result = slot_of(op.results[0]);
    asking.insert(op.results[0]);
    ops.index_.back() = static_cast<int>(ops.derived_.size());
    ops.derived_.push_back(derived);
  }
  return ops;
}

void DerivedOps::Call(size_t i, const PreparedOp& op,
                      absl::Span<at::Tensor> frame,
                      std::vector<KeptOp>& kept) const {
  if (index_[i] < 0) return op.Call(frame);
  const DerivedOp& derived = derived_[index_[i]];
  KeptOp& mine = kept.emplace_back();
  for (int k = 0; k < derived.row->operands; ++k) {
    if (derived.operands[k] == kNoSlot) continue;
    const at::Tensor& operand = frame[derived.operands[k]];
    mine.sizes[k] = operand.sizes();
    if (k == 0 && operand.dim() == 2) {
      mine.by_columns =
          operand.stride(0) == 1 && operand.stride(1) == operand.size(0);
    }
    if (!KeepsOperand(derived, k)) continue;
    mine.operands[k] = operand;
    mine.versions[k] = operand._version();
  }
  const c10::impl::ExcludeDispatchKeyGuard no_autograd(
      c10::autograd_dispatch_keyset_with_ADInplaceOrView);
  op.Call(frame);
  if (derived.row->keeps == Keeps::kResult) {
    mine.result = frame[derived.result];
  }
}

void DerivedOps::Backward(std::vector<KeptOp> kept,
                          absl::Span<const Slot> watched,
                          std::vector<at::Tensor>& gradients) const {
  const c10::impl::ExcludeDispatchKeyGuard no_autograd(
      c10::autograd_dispatch_keyset_with_ADInplaceOrView);
  for (size_t i = derived_.size(); i-- > 0;) {
    const DerivedOp& op = derived_[i];
    KeptOp mine = std::move(kept[i]);
    at::Tensor gradient = absl::c_linear_search(watched, op.result)
                              ? gradients[op.result]
                              : std::exchange(gradients[op.result], {});
    if (!gradient.defined()) continue;
    for (int k = 0; k < kMaxOperands; ++k) {
      TORCH_CHECK(!mine.operands[k].defined() ||
                      mine.operands[k]._version() == mine.versions[k],
                  op.row->target,
                  ": an operand was written to before its gradient was made");
    }
    Gradients made;
    op.row->formula(op, mine, gradient, made);
    gradient.reset();
    for (int k = 0; k < kMaxOperands; ++k) {
      if (!made[k].defined()) continue;
      if (made[k].sizes() != mine.sizes[k])
        made[k] = at::sum_to(std::move(made[k]), mine.sizes[k]);
      AddGradient(std::move(made[k]), gradients[op.operands[k]]);
    }
  }
}

}  // namespace shardplane
