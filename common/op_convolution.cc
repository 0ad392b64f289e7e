// Rows of convolutions and pools, and of the norms that go with them.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

namespace shardplane {
namespace {

// Where a convolution's arguments stand.
struct ConvolutionArguments {
  int stride = 3;
  int padding = 4;
  int dilation = 5;
  int groups = 6;
  int output_padding = -1;  // of a transposed one
};

// Reads input [n, c, *] or [c, *], weight [o, c/g, *] or, transposed,
// [c, o/g, *], bias [o].
class ConvolutionReader {
 public:
  ConvolutionReader(const OpCall& call, OpInstance* op, bool transposed)
      : call_(call), op_(op), transposed_(transposed) {
    if (transposed) at_ = {3, 4, 7, 6, 5};
  }

  absl::Status Read() {
    const size_t tensors = call_.operands.size();
    if (tensors < 2 || tensors > 3) {
      return BadCall(call_, "input, weight and perhaps a bias",
                     absl::StrCat(tensors, " tensors"));
    }
    const Shape& weight = call_.operands[1].shape;
    spatial_ = static_cast<int>(weight.size()) - 2;
    lead_ = Rank(call_.operands[0]) - spatial_;
    groups_ = IntArgument(call_, at_.groups, "groups").value_or(1);
    if (spatial_ < 1 || lead_ < 1 || lead_ > 2 || groups_ < 1) return Misfit();
    const int64_t in = call_.operands[0].shape[lead_ - 1];
    out_ = transposed_ ? weight[1] * groups_ : weight[0];
    if (in != (transposed_ ? weight[0] : weight[1] * groups_) ||
        out_ % groups_ != 0) {
      return Misfit();
    }
    SP_RETURN_IF_ERROR(ReadSpatial());
    ReadChannels(in);
    op_->refuses_empty = true;
    return absl::OkStatus();
  }

 private:
  absl::Status Misfit() const {
    return BadCall(call_,
                   absl::StrCat("an input that fits the weight ",
                                ToString(call_.operands[1])),
                   ToString(call_.operands[0]));
  }

  // Argument for each spatial dim.
  int64_t Each(int index, absl::string_view name, int d,
               int64_t otherwise) const {
    const auto values = IntsArgument(call_, index, name);
    if (!values || values->empty()) return otherwise;
    return (*values)[std::min<size_t>(d, values->size() - 1)];
  }

  absl::Status ReadSpatial() {
    const Argument* padding = FindArgument(call_, at_.padding, "padding");
    const auto* named = padding == nullptr
                            ? nullptr
                            : std::get_if<std::string>(&padding->value);
    for (int d = 0; d < spatial_; ++d) {
      const int64_t in = call_.operands[0].shape[lead_ + d];
      const int64_t reach = Each(at_.dilation, "dilation", d, 1) *
                            (call_.operands[1].shape[2 + d] - 1);
      const int64_t stride = Each(at_.stride, "stride", d, 1);
      int64_t pad = 2 * Each(at_.padding, "padding", d, 0);
      if (named != nullptr) pad = *named == "same" ? reach : 0;
      if (stride < 1 || (!transposed_ && in + pad <= reach)) return Misfit();
      sizes_.push_back(
          transposed_ ? (in - 1) * stride - pad + reach + 1 +
                            Each(at_.output_padding, "output_padding", d, 0)
                      : (in + pad - reach - 1) / stride + 1);
    }
    return absl::OkStatus();
  }

  // A cut input channel leaves Partial; with a bias it must be whole, and with
  // groups these are cut instead.
  void ReadChannels(int64_t in) {
    const bool bias = call_.operands.size() == 3;
    OperandRule input{{}, 0, /*linear=*/true};
    ResultRule result{{call_.operands[0].dtype, {}}, {}};
    if (lead_ == 2) {
      const int64_t batch = call_.operands[0].shape[0];
      input.dims.push_back({AddFactor(op_, batch, FactorKind::kPass)});
      result.dims = input.dims;
      result.type.shape = {batch};
    }
    std::vector<int> group;
    if (groups_ > 1) {
      group.push_back(AddFactor(op_, groups_, FactorKind::kPass));
      op_->lowering = Lowering::kGroups;
      op_->groups_argument = at_.groups;
      op_->groups_factor = group[0];
    }
    const auto channel = [&](int64_t size, FactorKind kind) {
      std::vector<int> factors = group;
      factors.push_back(AddFactor(op_, size / groups_, kind));
      return factors;
    };
    const std::vector<int> from = channel(
        in, bias || groups_ > 1 ? FactorKind::kWhole : FactorKind::kReduced);
    const std::vector<int> to = channel(out_, FactorKind::kPass);
    OperandRule weight{
        {transposed_ ? from : to, {transposed_ ? to.back() : from.back()}},
        0,
        /*linear=*/true};
    input.dims.push_back(from);
    result.type.shape.push_back(out_);
    result.dims.push_back(to);
    AddSpatial(&input, &weight, &result);
    const Shape& counted =
        transposed_ ? call_.operands[0].shape : result.type.shape;
    op_->flops = 2 * NumElements(counted) *
                 NumElements(call_.operands[1].shape) /
                 std::max<int64_t>(1, call_.operands[1].shape[0]);
    op_->operands = {std::move(input), std::move(weight)};
    if (bias) op_->operands.push_back({{to}, 1, /*linear=*/true});
    op_->results.push_back(std::move(result));
  }

  void AddSpatial(OperandRule* input, OperandRule* weight, ResultRule* result) {
    const auto whole = [&](int64_t size) {
      return std::vector<int>{AddFactor(op_, size, FactorKind::kWhole)};
    };
    for (int d = 0; d < spatial_; ++d) {
      input->dims.push_back(whole(call_.operands[0].shape[lead_ + d]));
      weight->dims.push_back(whole(call_.operands[1].shape[2 + d]));
      result->dims.push_back(whole(sizes_[d]));
      result->type.shape.push_back(sizes_[d]);
    }
  }

  const OpCall& call_;
  OpInstance* op_;
  bool transposed_;
  ConvolutionArguments at_;
  int spatial_ = 0;
  int lead_ = 0;  // dims before the spatial ones
  int64_t groups_ = 1;
  int64_t out_ = 0;
  Shape sizes_;  // spatial, of the result
};

}  // namespace

absl::Status BuildConvolution(const OpRow& row, const OpCall& call,
                              OpInstance* op) {
  return ConvolutionReader(call, op, row.spec == "transposed").Read();
}

absl::Status BuildWindows(const OpRow& row, const OpCall& call,
                          OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  int spatial = 0;
  if (!absl::SimpleAtoi(row.spec, &spatial) || Rank(in) < spatial) {
    return BadCall(call, absl::StrCat(row.spec, " dims or more"), ToString(in));
  }
  if (call.results.empty()) {
    return BadCall(call, "results recorded by the exporter", "none");
  }
  const int lead = Rank(in) - spatial;
  OperandRule operand{{}, 0, row.linearity == Linearity::kEach};
  for (int d = 0; d < Rank(in); ++d) {
    operand.dims.push_back({AddFactor(
        op, in.shape[d], d < lead ? FactorKind::kPass : FactorKind::kWhole)});
  }
  for (const TensorType& type : call.results) {
    ResultRule result{type, {}};
    for (int d = 0; d < Rank(type); ++d) {
      result.dims.push_back(d < lead
                                ? operand.dims[d]
                                : std::vector<int>{AddFactor(
                                      op, type.shape[d], FactorKind::kWhole)});
    }
    op->results.push_back(std::move(result));
  }
  op->operands.push_back(std::move(operand));
  op->refuses_empty = true;
  return absl::OkStatus();
}

absl::Status BuildChannelNorm(const OpRow& row, const OpCall& call,
                              OpInstance* op) {
  if (call.operands.empty() || Rank(call.operands[0]) < 2) {
    return BadCall(call, "a tensor [n, c, *]", "another");
  }
  const TensorType& in = call.operands[0];
  // Statistics of the input itself, and not those kept.
  const bool own = BoolArgument(call, 5, "training") ||
                   BoolArgument(call, kKeywordOnly, "use_input_stats");
  const bool kept = FindArgument(call, 3, "running_mean") != nullptr;
  if (own && kept) {
    return UnsupportedOption(call, "statistics that a forward changes");
  }
  OperandRule input;
  for (int d = 0; d < Rank(in); ++d) {
    const bool passes = !own || d == 1 || (d == 0 && row.spec == "instance");
    input.dims.push_back({AddFactor(
        op, in.shape[d], passes ? FactorKind::kPass : FactorKind::kWhole)});
  }
  op->results.push_back({in, input.dims});
  op->operands.push_back(input);
  for (size_t i = 1; i < call.operands.size(); ++i) {
    if (call.operands[i].shape != Shape{in.shape[1]}) {
      return BadCall(call, absl::StrCat("[", in.shape[1], "]"),
                     ToString(call.operands[i]));
    }
    op->operands.push_back({{input.dims[1]}});
  }
  op->refuses_empty = true;
  return absl::OkStatus();
}

absl::Status BuildGroupNorm(const OpRow&, const OpCall& call, OpInstance* op) {
  constexpr int kGroupsArgument = 1;
  const int64_t groups =
      IntArgument(call, kGroupsArgument, "num_groups").value_or(0);
  if (call.operands.empty() || Rank(call.operands[0]) < 2 || groups < 1 ||
      call.operands[0].shape[1] % groups != 0) {
    return BadCall(call, absl::StrCat("[n, c, *] of ", groups, " groups"),
                   call.operands.empty() ? "none" : ToString(call.operands[0]));
  }
  const TensorType& in = call.operands[0];
  op->groups_factor = AddFactor(op, groups, FactorKind::kPass);
  op->groups_argument = kGroupsArgument;
  op->lowering = Lowering::kGroups;
  const std::vector<int> channels = {
      op->groups_factor,
      AddFactor(op, in.shape[1] / groups, FactorKind::kWhole)};
  OperandRule input;
  for (int d = 0; d < Rank(in); ++d) {
    input.dims.push_back(
        d == 1 ? channels
               : std::vector<int>{AddFactor(
                     op, in.shape[d],
                     d == 0 ? FactorKind::kPass : FactorKind::kWhole)});
  }
  op->results.push_back({in, input.dims});
  op->operands.push_back(std::move(input));
  for (size_t i = 1; i < call.operands.size(); ++i) {
    op->operands.push_back({{channels}});
  }
  op->refuses_empty = true;
  return absl::OkStatus();
}

absl::Status BuildPrelu(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.size() != 2 || Rank(call.operands[1]) > 1) {
    return BadCall(call, "a tensor and its slopes", "others");
  }
  const TensorType& in = call.operands[0];
  op->operands.push_back({FactorsAround(in.shape, -1, op)});
  OperandRule slopes{DimFactors(call.operands[1].shape.size())};
  if (NumElements(call.operands[1].shape) != 1 && Rank(in) > 1) {
    slopes.dims = {op->operands[0].dims[1]};
  }
  op->results.push_back({in, op->operands[0].dims});
  op->operands.push_back(std::move(slopes));
  return absl::OkStatus();
}

}  // namespace shardplane
