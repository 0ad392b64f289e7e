#include "common/fused_operators.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/segment_ops.h"

namespace shardplane {
namespace {

// An op's two arguments in either order.
std::array<std::pair<const ProgramArgument*, const ProgramArgument*>, 2> Orders(
    const Op& op) {
  return {{{&op.args[0], &op.args[1]}, {&op.args[1], &op.args[0]}}};
}

Op Make(absl::string_view name, const Op& last, Arguments arguments,
        std::vector<ValueId> results) {
  return {.target = "shardplane." + std::string(name) + ".default",
          .args = std::move(arguments),
          .results = std::move(results),
          .fqn = last.fqn};
}

std::optional<Fusion> FindSwiglu(const SegmentOps& ops, size_t i) {
  if (!ops.Is(i, "aten.mul.Tensor", 2)) return std::nullopt;
  const Op& product = ops.at(i);
  for (const auto& [activated, up] : Orders(product)) {
    const auto silu = ops.Inner(*activated, "aten.silu.default", 1);
    if (!silu.has_value() || !ValueOf(*up).has_value()) continue;
    const ProgramArgument& gate = ops.at(*silu).args[0];
    if (!ops.AreAlike(*ValueOf(gate), *ValueOf(*up))) continue;
    return Fusion{
        Make("swiglu", product, {gate, *up}, product.results), i, {*silu}};
  }
  return std::nullopt;
}

// A value, and the ops that take it apart.
struct Halves {
  ValueId of;
  std::vector<size_t> ops;
};

// `low` and `high` are slices along the last dim.
std::optional<Halves> SlicedInHalves(const SegmentOps& ops,
                                     const ProgramArgument& low,
                                     const ProgramArgument& high) {
  const auto first = ops.Inner(low, "aten.slice.Tensor", 4);
  const auto second = ops.Inner(high, "aten.slice.Tensor", 4);
  if (!first.has_value() || !second.has_value()) return std::nullopt;
  const Arguments& from = ops.at(*first).args;
  const Arguments& to = ops.at(*second).args;
  const std::optional<ValueId> x = ValueOf(from[0]);
  if (!x.has_value() || ValueOf(to[0]) != x) return std::nullopt;
  const int rank = ops.rank(*x);
  const int64_t n = ops.value(*x).type.shape.back();
  const std::optional<double> end = NumberOf(to[3]);
  if (n % 2 != 0 || !IsLastDim(from[1], rank) || !IsLastDim(to[1], rank) ||
      !IsNumber(from[2], 0) || !IsNumber(from[3], n / 2) ||
      !IsNumber(to[2], n / 2) || !end.has_value() || *end < n) {
    return std::nullopt;
  }
  return Halves{*x, {*first, *second}};
}

// They are the results of one op, a chunk or a split along the last dim.
std::optional<Halves> SplitInHalves(const SegmentOps& ops,
                                    const ProgramArgument& low,
                                    const ProgramArgument& high) {
  for (const absl::string_view target :
       {"aten.chunk.default", "aten.split.Tensor"}) {
    const auto made = ops.Inner(low, target, 3);
    if (!made.has_value() || ops.Maker(high, target, 3) != made) continue;
    const Op& split = ops.at(*made);
    const std::optional<ValueId> x = ValueOf(split.args[0]);
    if (!x.has_value() || split.results.size() != 2 ||
        ValueOf(low) != split.results[0] || !ops.IsInner(split.results[1])) {
      continue;
    }
    const int64_t n = ops.value(*x).type.shape.back();
    const bool chunks = target == "aten.chunk.default";
    if (n % 2 == 0 && IsLastDim(split.args[2], ops.rank(*x)) &&
        IsNumber(split.args[1], chunks ? 2 : static_cast<double>(n / 2))) {
      return Halves{*x, {*made}};
    }
  }
  return std::nullopt;
}

// x of `cat(-x[n/2:], x[:n/2])`, whose ops are added to `inner`.
std::optional<ValueId> HalvesTurned(const SegmentOps& ops,
                                    const ProgramArgument& argument,
                                    std::vector<size_t>* inner) {
  const auto cat = ops.Inner(argument, "aten.cat.default", 2);
  if (!cat.has_value()) return std::nullopt;
  const auto* parts =
      std::get_if<ProgramArgumentList>(&ops.at(*cat).args[0].value);
  if (parts == nullptr || parts->size() != 2) return std::nullopt;
  const auto negated = ops.Inner((*parts)[0], "aten.neg.default", 1);
  if (!negated.has_value()) return std::nullopt;
  const ProgramArgument& low = (*parts)[1];
  const ProgramArgument& high = ops.at(*negated).args[0];
  std::optional<Halves> halves = SlicedInHalves(ops, low, high);
  if (!halves.has_value()) halves = SplitInHalves(ops, low, high);
  if (!halves.has_value() ||
      !IsLastDim(ops.at(*cat).args[1], ops.rank(halves->of))) {
    return std::nullopt;
  }
  inner->insert(inner->end(), {*cat, *negated});
  inner->insert(inner->end(), halves->ops.begin(), halves->ops.end());
  return halves->of;
}

std::optional<Fusion> FindRotary(const SegmentOps& ops, size_t i) {
  if (!ops.Is(i, "aten.add.Tensor", 2)) return std::nullopt;
  const Op& sum = ops.at(i);
  for (const auto& [straight, turned] : Orders(sum)) {
    const auto by_cos = ops.Inner(*straight, "aten.mul.Tensor", 2);
    const auto by_sin = ops.Inner(*turned, "aten.mul.Tensor", 2);
    if (!by_cos.has_value() || !by_sin.has_value()) continue;
    for (const auto& [halves, sin] : Orders(ops.at(*by_sin))) {
      std::vector<size_t> inner = {*by_cos, *by_sin};
      const auto x = HalvesTurned(ops, *halves, &inner);
      if (!x.has_value() || !ops.AreAlike(*x, sum.results[0])) continue;
      for (const auto& [operand, cos] : Orders(ops.at(*by_cos))) {
        if (ValueOf(*operand) != x || !ValueOf(*cos).has_value() ||
            !ValueOf(*sin).has_value() ||
            !ops.AreAlike(*ValueOf(*cos), *ValueOf(*sin))) {
          continue;
        }
        return Fusion{Make("rotary", sum, {*operand, *cos, *sin}, sum.results),
                      i, std::move(inner)};
      }
    }
  }
  return std::nullopt;
}

// A norm over the last dim, whatever makes it.
struct Norm {
  size_t at = 0;
  ProgramArgument x;
  ProgramArgument weight;       // none: monostate
  ProgramArgument eps;          // none: monostate
  ProgramArgument written_out;  // the dtype it is computed in, else monostate
  std::vector<size_t> inner;
};

std::optional<Norm> FindWholeNorm(const SegmentOps& ops, size_t i) {
  const Op& op = ops.at(i);
  if (op.target != "aten.rms_norm.default" || !op.kwargs.empty() ||
      op.args.size() < 2 || op.args.size() > 4) {
    return std::nullopt;
  }
  const auto* dims = std::get_if<ProgramArgumentList>(&op.args[1].value);
  if (dims == nullptr || dims->size() != 1) return std::nullopt;
  return Norm{.at = i,
              .x = op.args[0],
              .weight = op.args.size() > 2 ? op.args[2] : ProgramArgument{},
              .eps = op.args.size() > 3 ? op.args[3] : ProgramArgument{}};
}

// h * rsqrt(mean(h^2) + eps), h = x.to(d), made by `product`.
std::optional<Norm> FindScaled(const SegmentOps& ops, size_t product) {
  for (const auto& [h, factor] : Orders(ops.at(product))) {
    const auto rsqrt = ops.Inner(*factor, "aten.rsqrt.default", 1);
    if (!rsqrt.has_value()) continue;
    const auto sum = ops.Inner(ops.at(*rsqrt).args[0], "aten.add.Tensor", 2);
    if (!sum.has_value()) continue;
    const auto mean = ops.Inner(ops.at(*sum).args[0], "aten.mean.dim", 3);
    if (!mean.has_value()) continue;
    const Arguments& of = ops.at(*mean).args;
    const auto pow = ops.Inner(of[0], "aten.pow.Tensor_Scalar", 2);
    const auto* dims = std::get_if<ProgramArgumentList>(&of[1].value);
    const auto converted = ops.Inner(*h, "aten.to.dtype", 2, /*uses=*/2);
    if (!pow.has_value() || ops.at(*pow).args[0] != *h ||
        !IsNumber(ops.at(*pow).args[1], 2) || dims == nullptr ||
        dims->size() != 1 || !IsLastDim((*dims)[0], ops.rank(*ValueOf(*h))) ||
        of[2].value != ProgramArgument{true}.value ||
        !NumberOf(ops.at(*sum).args[1]).has_value() || !converted.has_value()) {
      continue;
    }
    return Norm{.x = ops.at(*converted).args[0],
                .eps = {*NumberOf(ops.at(*sum).args[1])},
                .written_out = ops.at(*converted).args[1],
                .inner = {product, *rsqrt, *sum, *mean, *pow, *converted}};
  }
  return std::nullopt;
}

std::optional<Norm> FindWrittenNorm(const SegmentOps& ops, size_t i) {
  if (!ops.Is(i, "aten.mul.Tensor", 2)) return std::nullopt;
  for (const auto& [weight, back] : Orders(ops.at(i))) {
    const auto to = ops.Inner(*back, "aten.to.dtype", 2);
    if (!to.has_value() || !ValueOf(*weight).has_value()) continue;
    const auto product = ops.Inner(ops.at(*to).args[0], "aten.mul.Tensor", 2);
    if (!product.has_value()) continue;
    std::optional<Norm> norm = FindScaled(ops, *product);
    if (!norm.has_value() || !ValueOf(norm->x).has_value()) continue;
    const TensorType& type = ops.value(*ValueOf(norm->x)).type;
    const TensorType& scale = ops.value(*ValueOf(*weight)).type;
    if (ops.at(*to).args[1].value != ProgramArgument{type.dtype}.value ||
        scale.dtype != type.dtype || scale.shape != Shape{type.shape.back()}) {
      continue;
    }
    norm->at = i;
    norm->weight = *weight;
    norm->inner.push_back(*to);
    return norm;
  }
  return std::nullopt;
}

// With the sum before it, at the place of that, if there is one.
std::optional<Fusion> FindNorm(const SegmentOps& ops, size_t i) {
  std::optional<Norm> norm = FindWholeNorm(ops, i);
  if (!norm.has_value()) norm = FindWrittenNorm(ops, i);
  if (!norm.has_value()) return std::nullopt;
  const Op& last = ops.at(i);
  const auto sum = ops.Maker(norm->x, "aten.add.Tensor", 2);
  const auto alike = [&](const ProgramArgument& term) {
    return ValueOf(term).has_value() &&
           ops.AreAlike(*ValueOf(term), *ValueOf(norm->x));
  };
  if (sum.has_value() && alike(ops.at(*sum).args[0]) &&
      alike(ops.at(*sum).args[1]) &&
      (!ValueOf(norm->weight).has_value() ||
       ops.IsThereBefore(*ValueOf(norm->weight), *sum))) {
    norm->inner.push_back(i);
    return Fusion{Make("add_rms_norm", last,
                       {ops.at(*sum).args[0], ops.at(*sum).args[1],
                        norm->weight, norm->eps, norm->written_out},
                       {*ValueOf(norm->x), last.results[0]}),
                  *sum, std::move(norm->inner)};
  }
  if (norm->written_out == ProgramArgument{}) return std::nullopt;
  return Fusion{
      Make("cast_rms_norm", last,
           {norm->x, norm->weight, norm->eps, norm->written_out}, last.results),
      i, std::move(norm->inner)};
}

// The same elements in the same rows, but for the dims that count these: as
// of reshape's result.
bool HasSameRows(const SegmentOps& ops, const ProgramArgument& whole,
                 const ProgramArgument& rows) {
  const std::optional<ValueId> id = ValueOf(whole);
  return id.has_value() && ops.rank(*id) > 1 &&
         ops.value(*id).type.shape.back() ==
             ops.value(*ValueOf(rows)).type.shape.back();
}

// The ops that make `logits` f32 and then, if they do, give them a dim for all
// rows; the first of them is the one that converts.
std::vector<size_t> FindWidening(const SegmentOps& ops,
                                 const ProgramArgument& logits) {
  const auto reshape = ops.Inner(logits, "aten.reshape.default", 2);
  const bool flat =
      reshape.has_value() && HasSameRows(ops, ops.at(*reshape).args[0], logits);
  const auto to =
      ops.Inner(flat ? ops.at(*reshape).args[0] : logits, "aten.to.dtype", 2);
  if (!to.has_value() ||
      ops.at(*to).args[1].value != ProgramArgument{DType::kFloat32}.value) {
    return {};
  }
  return flat ? std::vector<size_t>{*to, *reshape} : std::vector<size_t>{*to};
}

// Of class ids, a row of logits for each; of logits that are made f32 for it.
std::optional<Fusion> FindCrossEntropy(const SegmentOps& ops, size_t i) {
  const Op& op = ops.at(i);
  if (op.target != "aten.cross_entropy_loss.default" || !op.kwargs.empty() ||
      op.args.size() < 2 || !ValueOf(op.args[1]).has_value()) {
    return std::nullopt;
  }
  Arguments args = op.args;
  const Arguments defaults = {{}, {int64_t{1}}, {int64_t{-100}}, {0.0}};
  while (args.size() < 6) args.push_back(defaults[args.size() - 2]);
  const TensorType& target = ops.value(*ValueOf(args[1])).type;
  if (ops.rank(*ValueOf(args[0])) != 2 || target.shape.size() != 1 ||
      IsFloatingPoint(target.dtype) || args[2] != ProgramArgument{} ||
      !IsNumber(args[5], 0)) {
    return std::nullopt;
  }
  Fusion fusion{.at = i, .replaced = FindWidening(ops, args[0])};
  ProgramArgument dtype;
  if (!fusion.replaced.empty()) {
    args[0] = ops.at(fusion.replaced[0]).args[0];
    dtype = {DType::kFloat32};
  }
  fusion.op = Make("cross_entropy", op,
                   {args[0], args[1], args[3], args[4], dtype}, op.results);
  return fusion;
}

constexpr std::optional<Fusion> (*kFinders[])(const SegmentOps&, size_t) = {
    FindSwiglu, FindRotary, FindNorm, FindCrossEntropy};

void Fuse(const ShardedProgram& program, Segment* segment) {
  SegmentOps ops(program, *segment);
  for (size_t i = 0; i < ops.size(); ++i) {
    for (const auto find : kFinders) {
      std::optional<Fusion> fusion = find(ops, i);
      if (!fusion.has_value()) continue;
      ops.Take(*std::move(fusion));
      break;
    }
  }
  segment->ops = ops.Result();
}

}  // namespace

void FuseOperators(ShardedProgram* program) {
  for (Segment& segment : program->segments) Fuse(*program, &segment);
}

}  // namespace shardplane
