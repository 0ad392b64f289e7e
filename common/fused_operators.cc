#include "common/fused_operators.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/op_values.h"

namespace shardplane {
namespace {

using Arguments = std::vector<ProgramArgument>;

std::optional<ValueId> ValueOf(const ProgramArgument& argument) {
  const auto* ref = std::get_if<ValueRef>(&argument.value);
  return ref == nullptr ? std::nullopt : std::optional(ref->id);
}

std::optional<double> NumberOf(const ProgramArgument& argument) {
  if (const auto* number = std::get_if<double>(&argument.value)) return *number;
  const auto* whole = std::get_if<int64_t>(&argument.value);
  return whole == nullptr ? std::nullopt : std::optional<double>(*whole);
}

bool IsNumber(const ProgramArgument& argument, double number) {
  return NumberOf(argument) == number;
}

bool IsLastDim(const ProgramArgument& argument, int rank) {
  return IsNumber(argument, -1) || IsNumber(argument, rank - 1);
}

// An operator, where it goes, and the ops that it stands for.
struct Fusion {
  Op op;
  size_t at = 0;
  std::vector<size_t> replaced;
};

// A segment's ops, with those gone that are fused already.
class SegmentOps {
 public:
  SegmentOps(const ShardedProgram& program, const Segment& segment)
      : program_(program), segment_(segment), gone_(segment.ops.size()) {
    for (size_t i = 0; i < segment.ops.size(); ++i) {
      for (const ValueId id : segment.ops[i].results) made_by_[id] = i;
      for (const ValueId id : ValuesReadBy(segment.ops[i])) ++uses_[id];
    }
  }

  size_t size() const { return segment_.ops.size(); }
  const Op& at(size_t i) const { return segment_.ops[i]; }
  const Value& value(ValueId id) const { return program_.values[id]; }
  int rank(ValueId id) const {
    return static_cast<int>(value(id).type.shape.size());
  }
  bool AreAlike(ValueId a, ValueId b) const {
    return value(a).type == value(b).type && value(a).spec == value(b).spec;
  }

  bool Is(size_t i, absl::string_view target, size_t arguments) const {
    return !gone_[i] && at(i).target == target &&
           at(i).args.size() == arguments && at(i).kwargs.empty();
  }
  // The op of this target and so many arguments that makes a value.
  std::optional<size_t> Maker(const ProgramArgument& argument,
                              absl::string_view target,
                              size_t arguments) const {
    const std::optional<ValueId> id = ValueOf(argument);
    if (!id.has_value()) return std::nullopt;
    const auto found = made_by_.find(*id);
    if (found == made_by_.end() || !Is(found->second, target, arguments)) {
      return std::nullopt;
    }
    return found->second;
  }
  // The same, where the value has so many uses, all within the segment.
  std::optional<size_t> Inner(const ProgramArgument& argument,
                              absl::string_view target, size_t arguments,
                              int uses = 1) const {
    const std::optional<size_t> made = Maker(argument, target, arguments);
    const bool within =
        made.has_value() && uses_.at(at(*made).results[0]) == uses &&
        std::ranges::find(segment_.outputs, at(*made).results[0]) ==
            segment_.outputs.end();
    return within ? made : std::nullopt;
  }
  bool IsThereBefore(ValueId id, size_t i) const {
    const auto made = made_by_.find(id);
    return made == made_by_.end() || made->second < i;
  }

  void Take(Fusion fusion) {
    for (const size_t i : fusion.replaced) gone_[i] = true;
    gone_[fusion.at] = true;
    fused_[fusion.at] = std::move(fusion.op);
  }
  std::vector<Op> Result() const {
    std::vector<Op> ops;
    for (size_t i = 0; i < size(); ++i) {
      const auto fused = fused_.find(i);
      if (fused != fused_.end()) {
        ops.push_back(fused->second);
      } else if (!gone_[i]) {
        ops.push_back(at(i));
      }
    }
    return ops;
  }

 private:
  const ShardedProgram& program_;
  const Segment& segment_;
  std::vector<bool> gone_;
  absl::flat_hash_map<ValueId, size_t> made_by_;
  absl::flat_hash_map<ValueId, int> uses_;
  absl::flat_hash_map<size_t, Op> fused_;
};

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
  const auto high = ops.Inner(ops.at(*negated).args[0], "aten.slice.Tensor", 4);
  const auto low = ops.Inner((*parts)[1], "aten.slice.Tensor", 4);
  if (!high.has_value() || !low.has_value()) return std::nullopt;
  const Arguments& second = ops.at(*high).args;
  const Arguments& first = ops.at(*low).args;
  const std::optional<ValueId> x = ValueOf(first[0]);
  if (!x.has_value() || ValueOf(second[0]) != x) return std::nullopt;
  const int rank = ops.rank(*x);
  const int64_t n = ops.value(*x).type.shape.back();
  const std::optional<double> end = NumberOf(second[3]);
  if (n % 2 != 0 || !IsLastDim(ops.at(*cat).args[1], rank) ||
      !IsLastDim(first[1], rank) || !IsLastDim(second[1], rank) ||
      !IsNumber(first[2], 0) || !IsNumber(first[3], n / 2) ||
      !IsNumber(second[2], n / 2) || !end.has_value() || *end < n) {
    return std::nullopt;
  }
  inner->insert(inner->end(), {*cat, *negated, *high, *low});
  return x;
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
  Fusion fusion{.at = i};
  ProgramArgument dtype;
  const auto to = ops.Inner(args[0], "aten.to.dtype", 2);
  if (to.has_value() &&
      ops.at(*to).args[1].value == ProgramArgument{DType::kFloat32}.value) {
    args[0] = ops.at(*to).args[0];
    dtype = {DType::kFloat32};
    fusion.replaced.push_back(*to);
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
