// Rows of views: the same elements under other dims.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

namespace shardplane {
namespace {

int64_t Wrap(int64_t dim, int rank) { return dim < 0 ? dim + rank : dim; }

// The shape that a view asks for, from its arguments; {-2} if they do not say.
Shape AskedShape(absl::string_view how, const OpCall& call) {
  const Shape& in = call.operands[0].shape;
  const int rank = static_cast<int>(in.size());
  Shape out;
  if (how == "sizes") {
    return IntsArgument(call, 1, "size")
        .value_or(IntsArgument(call, 1, "shape").value_or(Shape{-2}));
  }
  if (how == "unsqueeze") {
    const int64_t dim = Wrap(IntArgument(call, 1, "dim").value_or(0), rank + 1);
    out = in;
    if (dim < 0 || dim > rank) return {-2};
    out.insert(out.begin() + dim, 1);
    return out;
  }
  if (how == "squeeze") {
    const auto dims = IntsArgument(call, 1, "dim");
    for (int d = 0; d < rank; ++d) {
      bool asked = !dims;
      for (const int64_t dim : dims.value_or(Shape{})) {
        asked = asked || Wrap(dim, rank) == d;
      }
      if (!asked || in[d] != 1) out.push_back(in[d]);
    }
    return out;
  }
  if (how == "flatten") {
    const int64_t begin =
        Wrap(IntArgument(call, 1, "start_dim").value_or(0), rank);
    const int64_t end =
        Wrap(IntArgument(call, 2, "end_dim").value_or(-1), rank);
    if (begin < 0 || end >= rank || begin > end) return {-2};
    out.assign(in.begin(), in.begin() + begin);
    int64_t product = 1;
    for (int64_t d = begin; d <= end; ++d) product *= in[d];
    out.push_back(product);
    out.insert(out.end(), in.begin() + end + 1, in.end());
    return out;
  }
  // "unflatten"
  const int64_t dim = Wrap(IntArgument(call, 1, "dim").value_or(-99), rank);
  const auto sizes = IntsArgument(call, 2, "sizes");
  if (dim < 0 || dim >= rank || !sizes) return {-2};
  out.assign(in.begin(), in.begin() + dim);
  out.insert(out.end(), sizes->begin(), sizes->end());
  out.insert(out.end(), in.begin() + dim + 1, in.end());
  return out;
}

// Fills in one -1. False if the elements do not fit.
bool Complete(int64_t elements, Shape* shape) {
  int64_t product = 1;
  int64_t* open = nullptr;
  for (int64_t& size : *shape) {
    if (size == -1 && open == nullptr) {
      open = &size;
    } else if (size < 0) {
      return false;
    } else {
      product *= size;
    }
  }
  if (open != nullptr) {
    if (product == 0 || elements % product != 0) return false;
    *open = elements / product;
    product *= *open;
  }
  return product == elements;
}

}  // namespace

ViewFactors FactorView(const Shape& from, const Shape& to) {
  ViewFactors view;
  view.from.resize(from.size());
  view.to.resize(to.size());
  if (NumElements(from) == 0) {
    for (DimFactors* side : {&view.from, &view.to}) {
      const Shape& shape = side == &view.from ? from : to;
      for (size_t d = 0; d < shape.size(); ++d) {
        (*side)[d].push_back(static_cast<int>(view.factors.size()));
        view.factors.push_back({shape[d], FactorKind::kWhole});
      }
    }
    return view;
  }
  size_t i = 0;
  size_t j = 0;
  int64_t a = 1;  // what is left of from[i-1] and of to[j-1]
  int64_t b = 1;
  while (true) {
    while (a == 1 && i < from.size()) a = from[i++];
    while (b == 1 && j < to.size()) b = to[j++];
    if (a == 1 && b == 1) break;
    if (a % b == 0 || b % a == 0) {
      const int64_t size = std::min(a, b);
      view.factors.push_back({size, FactorKind::kPass});
      a /= size;
      b /= size;
    } else {
      // No common refinement: the dims up to the next common boundary are one.
      while (a != b) {
        const bool left = a < b;
        const size_t index = left ? i : j;
        const int whole = static_cast<int>(view.factors.size());
        (left ? view.from[index - 1] : view.to[index - 1]).push_back(whole);
        if (left) {
          a *= from[i++];
        } else {
          b *= to[j++];
        }
      }
      view.factors.push_back({a, FactorKind::kWhole});
      a = b = 1;
    }
    const int factor = static_cast<int>(view.factors.size()) - 1;
    view.from[i - 1].push_back(factor);
    view.to[j - 1].push_back(factor);
  }
  return view;
}

absl::Status BuildView(const OpRow& row, const OpCall& call, OpInstance* op) {
  if (call.operands.size() != 1) return BadCall(call, "one tensor", "others");
  const TensorType& in = call.operands[0];
  Shape shape = AskedShape(row.spec, call);
  if (!Complete(NumElements(in.shape), &shape)) {
    return BadCall(call,
                   absl::StrCat("a shape with the elements of ", ToString(in)),
                   ShapeToString(shape));
  }
  ViewFactors view = FactorView(in.shape, shape);
  op->factors = std::move(view.factors);
  op->operands.push_back({std::move(view.from), 0, /*linear=*/true});
  op->results.push_back({{in.dtype, shape}, std::move(view.to)});
  ResizeTo("aten.reshape.default", op);
  return absl::OkStatus();
}

absl::Status BuildViewAsComplex(const OpRow&, const OpCall& call,
                                OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  if (in.shape.empty() || in.shape.back() != 2 || !IsFloatingPoint(in.dtype)) {
    return BadCall(call, "floating-point numbers in a last dim of 2",
                   ToString(in));
  }
  op->operands.push_back(
      {FactorsAround(in.shape, Rank(in) - 1, op), 0, /*linear=*/true});
  ResultRule result{{ComplexOf(in.dtype), in.shape}, op->operands[0].dims};
  result.type.shape.pop_back();
  result.dims.pop_back();
  op->results.push_back(std::move(result));
  op->target = "shardplane.view_as_complex.default";
  return absl::OkStatus();
}

absl::Status BuildViewAsReal(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(OneTensor(call));
  const TensorType& in = call.operands[0];
  if (!IsComplex(in.dtype)) {
    return BadCall(call, "complex numbers", ToString(in));
  }
  op->operands.push_back({FactorsAround(in.shape, -1, op), 0, /*linear=*/true});
  ResultRule result{{RealOf(in.dtype), in.shape}, op->operands[0].dims};
  result.type.shape.push_back(2);
  result.dims.push_back({AddFactor(op, 2, FactorKind::kWhole)});
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildExpand(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.size() != 1) return BadCall(call, "one tensor", "others");
  const TensorType& in = call.operands[0];
  Shape shape = IntsArgument(call, 1, "size").value_or(Shape{});
  const int skip = static_cast<int>(shape.size()) - Rank(in);
  if (skip < 0) {
    return BadCall(call, absl::StrCat(Rank(in), " sizes or more"),
                   ShapeToString(shape));
  }
  OperandRule operand{{}, 0, /*linear=*/true};
  ResultRule result;
  for (int d = 0; d < static_cast<int>(shape.size()); ++d) {
    const int64_t have = d < skip ? 1 : in.shape[d - skip];
    if (shape[d] == -1) shape[d] = have;
    if (shape[d] != have && have != 1) {
      return BadCall(call,
                     absl::StrCat("sizes that ", ToString(in), " expands to"),
                     ShapeToString(shape));
    }
    op->factors.push_back({shape[d], FactorKind::kPass});
    const int factor = static_cast<int>(op->factors.size()) - 1;
    result.dims.push_back({factor});
    if (d >= skip) {
      operand.dims.push_back(have == shape[d] ? std::vector<int>{factor}
                                              : std::vector<int>{});
    }
  }
  result.type = {in.dtype, shape};
  op->operands.push_back(std::move(operand));
  op->results.push_back(std::move(result));
  ResizeTo("aten.expand.default", op);
  return absl::OkStatus();
}

absl::Status BuildPermute(const OpRow& row, const OpCall& call,
                          OpInstance* op) {
  if (call.operands.size() != 1) return BadCall(call, "one tensor", "others");
  const TensorType& in = call.operands[0];
  const int rank = Rank(in);
  std::vector<int64_t> order(rank);
  for (int d = 0; d < rank; ++d) order[d] = d;
  if (row.spec == "dims") {
    order = IntsArgument(call, 1, "dims").value_or(order);
    for (int64_t& dim : order) dim = Wrap(dim, rank);
  } else {
    const bool last = row.spec == "t";
    const int64_t a =
        Wrap(last ? -2 : IntArgument(call, 1, "dim0").value_or(-99), rank);
    const int64_t b =
        Wrap(last ? -1 : IntArgument(call, 2, "dim1").value_or(-99), rank);
    if (rank >= 2 || !last) {
      if (a < 0 || b < 0 || a >= rank || b >= rank) {
        return BadCall(call, absl::StrCat("dims of ", ToString(in)),
                       absl::StrCat(a, " and ", b));
      }
      std::swap(order[a], order[b]);
    }
  }
  std::vector<bool> seen(rank, false);
  OperandRule operand{{}, 0, /*linear=*/true};
  for (int d = 0; d < rank; ++d) {
    op->factors.push_back({in.shape[d], FactorKind::kPass});
    operand.dims.push_back({d});
  }
  ResultRule result{{in.dtype, {}}, {}};
  for (const int64_t dim : order) {
    if (dim < 0 || dim >= rank || seen[dim] ||
        static_cast<int>(order.size()) != rank) {
      return BadCall(call, absl::StrCat("a permutation of ", rank, " dims"),
                     ShapeToString(order));
    }
    seen[dim] = true;
    result.type.shape.push_back(in.shape[dim]);
    result.dims.push_back({static_cast<int>(dim)});
  }
  op->operands.push_back(std::move(operand));
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

}  // namespace shardplane
