// Rows of ops that read or write at places that tensors of indices name.
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

namespace shardplane {
namespace {

// Reads x[:, i, j] : the tensors in the list of argument 1 index one dim each.
class IndexReader {
 public:
  IndexReader(const OpCall& call, OpInstance* op)
      : call_(call), op_(op), self_(call.operands[0]) {}

  // `kind`: of the indices' own dims.
  absl::Status Read(FactorKind kind) {
    SP_RETURN_IF_ERROR(FindIndexed());
    SP_RETURN_IF_ERROR(ReadIndices(kind));
    OperandRule self;
    for (int d = 0; d < Rank(self_); ++d) {
      self.dims.push_back(
          {AddFactor(op_, self_.shape[d],
                     indexed_[d] ? FactorKind::kWhole : FactorKind::kPass)});
    }
    Pick(self.dims);
    op_->operands.insert(op_->operands.begin(), std::move(self));
    return absl::OkStatus();
  }

  int indices() const { return static_cast<int>(dims_.size()); }
  const ResultRule& picked() const { return picked_; }

  // `type` broadcasts to `rule`.
  static OperandRule OnRight(const TensorType& type, const ResultRule& rule) {
    OperandRule operand;
    const size_t skip = rule.dims.size() - type.shape.size();
    for (size_t d = 0; d < type.shape.size(); ++d) {
      operand.dims.push_back(type.shape[d] == 1 ? std::vector<int>{}
                                                : rule.dims[skip + d]);
    }
    return operand;
  }

 private:
  absl::Status FindIndexed() {
    indexed_.assign(Rank(self_), false);
    const Argument* argument = FindArgument(call_, 1, "indices");
    const auto* list = argument == nullptr
                           ? nullptr
                           : std::get_if<ArgumentList>(&argument->value);
    if (list == nullptr) return BadCall(call_, "a list of indices", "none");
    for (size_t d = 0; d < list->size(); ++d) {
      if (std::holds_alternative<std::monostate>((*list)[d].value)) continue;
      if (d >= indexed_.size()) {
        return BadCall(call_, absl::StrCat("indices of ", ToString(self_)),
                       absl::StrCat(list->size()));
      }
      indexed_[d] = true;
      dims_.push_back(static_cast<int>(d));
    }
    if (!dims_.empty() && call_.operands.size() > dims_.size()) {
      return absl::OkStatus();
    }
    return BadCall(call_, "an index", "none");
  }

  absl::Status ReadIndices(FactorKind kind) {
    size_t rank = 0;
    for (int i = 1; i <= indices(); ++i) {
      rank = std::max(rank, call_.operands[i].shape.size());
    }
    broadcast_.type.shape.assign(rank, 1);
    for (int i = 1; i <= indices(); ++i) {
      const TensorType& index = call_.operands[i];
      if (index.dtype == DType::kBool || index.dtype == DType::kUInt8) {
        return UnsupportedOption(
            call_, absl::StrCat("a mask as index, ", ToString(index)));
      }
      const size_t skip = rank - index.shape.size();
      for (size_t d = 0; d < index.shape.size(); ++d) {
        int64_t& size = broadcast_.type.shape[skip + d];
        if (index.shape[d] == 1) continue;
        if (size != 1 && size != index.shape[d]) {
          return BadCall(call_, "indices that broadcast", ToString(index));
        }
        size = index.shape[d];
      }
    }
    for (const int64_t size : broadcast_.type.shape) {
      broadcast_.dims.push_back(
          size == 1 ? std::vector<int>{}
                    : std::vector<int>{AddFactor(op_, size, kind)});
    }
    for (int i = 1; i <= indices(); ++i) {
      op_->operands.push_back(OnRight(call_.operands[i], broadcast_));
    }
    return absl::OkStatus();
  }

  // Adjacent indices leave their dims in place, others in front.
  void Pick(const DimFactors& self) {
    const bool adjacent = dims_.back() - dims_.front() + 1 == indices();
    const int at = adjacent ? dims_.front() : 0;
    picked_.type.dtype = self_.dtype;
    int d = 0;
    const auto pass_until = [&](int end) {
      for (; d < end; ++d) {
        if (indexed_[d]) continue;
        picked_.type.shape.push_back(self_.shape[d]);
        picked_.dims.push_back(self[d]);
      }
    };
    pass_until(at);
    picked_.type.shape.insert(picked_.type.shape.end(),
                              broadcast_.type.shape.begin(),
                              broadcast_.type.shape.end());
    picked_.dims.insert(picked_.dims.end(), broadcast_.dims.begin(),
                        broadcast_.dims.end());
    pass_until(Rank(self_));
  }

  const OpCall& call_;
  OpInstance* op_;
  const TensorType& self_;
  std::vector<bool> indexed_;  // by dim of self
  std::vector<int> dims_;      // those that are
  ResultRule broadcast_;       // of the indices
  ResultRule picked_;
};

// Another size along `dim`, which is whole.
DimFactors WithDim(DimFactors dims, int dim, int64_t size, OpInstance* op) {
  dims[dim] = {AddFactor(op, size, FactorKind::kWhole)};
  return dims;
}

absl::Status GatherAlong(const OpCall& call, int dim, OpInstance* op) {
  const TensorType& self = call.operands[0];
  const TensorType& index = call.operands[1];
  if (Rank(index) != Rank(self)) {
    return BadCall(call, absl::StrCat("an index of ", Rank(self), " dims"),
                   ToString(index));
  }
  OperandRule from{{}, 0, /*linear=*/true};
  ResultRule result{{self.dtype, index.shape}, {}};
  for (int d = 0; d < Rank(self); ++d) {
    const bool alike = d != dim && self.shape[d] == index.shape[d];
    const bool passes = alike || d == dim;
    result.dims.push_back({AddFactor(
        op, index.shape[d], passes ? FactorKind::kPass : FactorKind::kWhole)});
    from.dims.push_back(alike ? result.dims[d]
                              : std::vector<int>{AddFactor(
                                    op, self.shape[d], FactorKind::kWhole)});
  }
  op->operands.push_back(std::move(from));
  op->operands.push_back({result.dims});
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

}  // namespace

absl::Status BuildIndex(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.empty()) return BadCall(call, "a tensor", "none");
  IndexReader reader(call, op);
  SP_RETURN_IF_ERROR(reader.Read(FactorKind::kPass));
  op->operands[0].linear = true;
  op->results.push_back(reader.picked());
  return absl::OkStatus();
}

absl::Status BuildIndexPut(const OpRow&, const OpCall& call, OpInstance* op) {
  if (call.operands.empty()) return BadCall(call, "a tensor", "none");
  IndexReader reader(call, op);
  SP_RETURN_IF_ERROR(reader.Read(FactorKind::kWhole));
  SP_RETURN_IF_ERROR(Tensors(call, reader.indices() + 2, reader.indices() + 2));
  const TensorType& values = call.operands.back();
  const Shape& places = reader.picked().type.shape;
  const int skip = static_cast<int>(places.size()) - Rank(values);
  for (int d = 0; d < Rank(values); ++d) {
    if (skip >= 0 &&
        (values.shape[d] == 1 || values.shape[d] == places[skip + d])) {
      continue;
    }
    return BadCall(call, absl::StrCat("values for ", ShapeToString(places)),
                   ToString(values));
  }
  op->operands[0].linear = true;
  op->operands.push_back(IndexReader::OnRight(values, reader.picked()));
  op->operands.back().term = 1;
  op->operands.back().linear = true;
  op->results.push_back({call.operands[0], op->operands[0].dims});
  return absl::OkStatus();
}

absl::Status BuildTakeAlong(const OpRow& row, const OpCall& call,
                            OpInstance* op) {
  SP_RETURN_IF_ERROR(Tensors(call, 2, 2));
  const TensorType& self = call.operands[0];
  const TensorType& index = call.operands[1];
  bool gathers =
      FindArgument(call, 2, "dim") != nullptr && Rank(index) == Rank(self);
  if (gathers) {
    SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 2, Rank(self), 0));
    for (int d = 0; d < Rank(self); ++d) {
      gathers = gathers && (d == dim || self.shape[d] == index.shape[d]);
    }
    if (gathers) return GatherAlong(call, dim, op);
  }
  op->has_row = false;  // flattened, or broadcast
  return BuildWhole(row, call, op);
}

absl::Status BuildGather(const OpRow&, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(Tensors(call, 2, 2));
  SP_ASSIGN_OR_RETURN(const int dim,
                      DimArgument(call, 1, Rank(call.operands[0]), 0));
  return GatherAlong(call, dim, op);
}

absl::Status BuildScatter(const OpRow& row, const OpCall& call,
                          OpInstance* op) {
  SP_RETURN_IF_ERROR(Tensors(call, 2, 3));
  const TensorType& self = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 1, Rank(self), 0));
  std::vector<bool> alike(Rank(self), true);
  alike[dim] = false;
  for (const TensorType& type : call.operands) {
    if (Rank(type) != Rank(self)) {
      return BadCall(call, absl::StrCat(Rank(self), " dims"), ToString(type));
    }
    for (int d = 0; d < Rank(self); ++d) {
      alike[d] = alike[d] && type.shape[d] == self.shape[d];
    }
  }
  const DimFactors shared = FactorsAround(self.shape, -1, op);
  for (size_t i = 0; i < call.operands.size(); ++i) {
    OperandRule operand{shared, i == 2 ? 1 : 0};
    operand.linear =
        i != 1 && row.linearity == Linearity::kSum && call.operands.size() == 3;
    for (int d = 0; d < Rank(self); ++d) {
      if (alike[d]) continue;
      operand.dims =
          WithDim(std::move(operand.dims), d, call.operands[i].shape[d], op);
    }
    op->operands.push_back(std::move(operand));
  }
  op->results.push_back({self, op->operands[0].dims});
  return absl::OkStatus();
}

absl::Status BuildIndexSelect(const OpRow&, const OpCall& call,
                              OpInstance* op) {
  SP_RETURN_IF_ERROR(Tensors(call, 2, 2));
  const TensorType& self = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 1, Rank(self), 0));
  const Shape& index = call.operands[1].shape;
  op->operands.push_back(
      {FactorsAround(self.shape, dim, op), 0, /*linear=*/true});
  ResultRule result{self, op->operands[0].dims};
  const int64_t count = NumElements(index);
  result.type.shape[dim] = count;
  result.dims[dim] = {AddFactor(op, count, FactorKind::kPass)};
  op->operands.push_back(
      {index.empty() ? DimFactors{} : DimFactors{result.dims[dim]}});
  op->results.push_back(std::move(result));
  return absl::OkStatus();
}

absl::Status BuildIndexWrite(const OpRow& row, const OpCall& call,
                             OpInstance* op) {
  SP_RETURN_IF_ERROR(Tensors(call, 2, 3));
  const TensorType& self = call.operands[0];
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 1, Rank(self), 0));
  op->operands.push_back({FactorsAround(self.shape, dim, op)});
  OperandRule index;
  for (const int64_t size : call.operands[1].shape) {
    index.dims.push_back({AddFactor(op, size, FactorKind::kWhole)});
  }
  op->operands.push_back(std::move(index));
  if (call.operands.size() == 3 && Rank(call.operands[2]) == Rank(self)) {
    const int64_t rows = call.operands[2].shape[dim];
    op->operands.push_back({WithDim(op->operands[0].dims, dim, rows, op), 1});
    for (const int i : {0, 2}) {
      op->operands[i].linear = row.linearity == Linearity::kSum;
    }
  } else if (call.operands.size() == 3) {
    if (Rank(call.operands[2]) != 0) {
      return BadCall(call, absl::StrCat("a source like ", ToString(self)),
                     ToString(call.operands[2]));
    }
    op->operands.push_back({});
  }
  op->results.push_back({self, op->operands[0].dims});
  return absl::OkStatus();
}

absl::Status BuildWritePart(const OpRow& row, const OpCall& call,
                            OpInstance* op) {
  SP_RETURN_IF_ERROR(Tensors(call, 2, 2));
  const TensorType& self = call.operands[0];
  const TensorType& part = call.operands[1];
  const bool select = row.spec == "select";
  SP_ASSIGN_OR_RETURN(const int dim, DimArgument(call, 2, Rank(self), 0));
  OperandRule whole{FactorsAround(self.shape, dim, op), 0, /*linear=*/true};
  OperandRule source{whole.dims, 1, /*linear=*/true};
  Shape fits = self.shape;
  if (select) {
    source.dims.erase(source.dims.begin() + dim);
    fits.erase(fits.begin() + dim);
  } else if (Rank(part) == Rank(self)) {
    fits[dim] = part.shape[dim];
    source.dims = WithDim(std::move(source.dims), dim, part.shape[dim], op);
  }
  if (part.shape != fits) {
    return BadCall(call, absl::StrCat("a part of ", ToString(self)),
                   ToString(part));
  }
  op->results.push_back({self, whole.dims});
  op->operands = {std::move(whole), std::move(source)};
  return absl::OkStatus();
}

absl::Status BuildLookup(const OpRow& row, const OpCall& call, OpInstance* op) {
  SP_RETURN_IF_ERROR(Tensors(call, 2, 2));
  op->operands.push_back({FactorsAround(call.operands[0].shape, -1, op)});
  OperandRule set;
  for (const int64_t size : call.operands[1].shape) {
    set.dims.push_back({AddFactor(op, size, FactorKind::kWhole)});
  }
  op->operands.push_back(std::move(set));
  const DType dtype = row.spec == "bool" ? DType::kBool : DType::kInt64;
  op->results.push_back(
      {{dtype, call.operands[0].shape}, op->operands[0].dims});
  return absl::OkStatus();
}

}  // namespace shardplane
