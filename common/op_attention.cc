// Rows of norms and of attention.
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_rules.h"

namespace shardplane {
namespace {

// Reads query [*, l, e], key [*, s, e], value [*, s, f] and a mask that
// broadcasts to [*, l, s]; `*` broadcasts, and with grouped queries its last
// dim counts key heads times queries a head.
class AttentionReader {
 public:
  AttentionReader(const OpCall& call, OpInstance* op)
      : call_(call), op_(op), operands_(call.operands) {}

  absl::Status Read() {
    if (operands_.size() < 3 || operands_.size() > 4) {
      return BadCall(call_, "query, key, value and perhaps a mask",
                     absl::StrCat(operands_.size(), " tensors"));
    }
    rank_ = Rank(operands_[0]);
    if (rank_ < 2 || Rank(operands_[1]) != rank_ ||
        Rank(operands_[2]) != rank_) {
      return Misfit(1);
    }
    op_->operands.resize(operands_.size());
    SP_RETURN_IF_ERROR(ReadLeading());
    SP_RETURN_IF_ERROR(ReadLast());
    if (operands_.size() == 4) SP_RETURN_IF_ERROR(ReadMask());
    op_->lowering = Lowering::kAttention;
    return absl::OkStatus();
  }

 private:
  int64_t Size(int operand, int dim) const {
    return operands_[operand].shape[dim];
  }
  absl::Status Misfit(int operand) const {
    return BadCall(call_, absl::StrCat("what fits ", ToString(operands_[0])),
                   ToString(operands_[operand]));
  }

  absl::Status ReadLeading() {
    const bool grouped = BoolArgument(call_, kKeywordOnly, "enable_gqa");
    for (int d = 0; d < rank_ - 2; ++d) {
      const bool heads = grouped && d == rank_ - 3;
      SP_RETURN_IF_ERROR(heads && Size(0, d) != Size(1, d) ? ReadHeads(d)
                                                           : ReadBatch(d));
    }
    return absl::OkStatus();
  }

  absl::Status ReadBatch(int d) {
    int64_t size = 1;
    for (int i = 0; i < 3; ++i) {
      if (size != 1 && Size(i, d) != 1 && Size(i, d) != size) return Misfit(i);
      if (Size(i, d) != 1) size = Size(i, d);
    }
    const int factor = AddFactor(op_, size, FactorKind::kPass);
    for (int i = 0; i < 3; ++i) {
      op_->operands[i].dims.push_back(
          Size(i, d) == size ? std::vector<int>{factor} : std::vector<int>{});
    }
    leading_.push_back({factor});
    sizes_.push_back(size);
    return absl::OkStatus();
  }

  absl::Status ReadHeads(int d) {
    const int64_t heads = Size(1, d);
    if (heads == 0 || Size(2, d) != heads || Size(0, d) % heads != 0) {
      return Misfit(1);
    }
    const int key_head = AddFactor(op_, heads, FactorKind::kPass);
    const int query = AddFactor(op_, Size(0, d) / heads, FactorKind::kPass);
    op_->operands[0].dims.push_back({key_head, query});
    op_->operands[1].dims.push_back({key_head});
    op_->operands[2].dims.push_back({key_head});
    leading_.push_back({key_head, query});
    sizes_.push_back(Size(0, d));
    return absl::OkStatus();
  }

  absl::Status ReadLast() {
    const int row = rank_ - 2;
    const int column = rank_ - 1;
    if (Size(1, column) != Size(0, column)) return Misfit(1);
    if (Size(2, row) != Size(1, row)) return Misfit(2);
    // A causal mask counts queries from the first.
    const bool causal = BoolArgument(call_, 5, "is_causal");
    queries_ = AddFactor(op_, Size(0, row),
                         causal ? FactorKind::kWhole : FactorKind::kPass);
    keys_ = AddFactor(op_, Size(1, row), FactorKind::kWhole);
    const int width = AddFactor(op_, Size(0, column), FactorKind::kWhole);
    const int value_width = AddFactor(op_, Size(2, column), FactorKind::kWhole);
    const std::pair<int, int> last[] = {
        {queries_, width}, {keys_, width}, {keys_, value_width}};
    for (int i = 0; i < 3; ++i) {
      op_->operands[i].dims.push_back({last[i].first});
      op_->operands[i].dims.push_back({last[i].second});
    }
    ResultRule result{{operands_[0].dtype, sizes_}, leading_};
    result.type.shape.push_back(Size(0, row));
    result.type.shape.push_back(Size(2, column));
    result.dims.push_back({queries_});
    result.dims.push_back({value_width});
    op_->flops = 2 * NumElements(result.type.shape) / Size2(column) *
                 Size(1, row) * (Size(0, column) + Size(2, column));
    op_->results.push_back(std::move(result));
    return absl::OkStatus();
  }
  int64_t Size2(int column) const {
    return Size(2, column) == 0 ? 1 : Size(2, column);
  }

  absl::Status ReadMask() {
    DimFactors full = leading_;
    full.push_back({queries_});
    full.push_back({keys_});
    Shape sizes = sizes_;
    sizes.push_back(Size(0, rank_ - 2));
    sizes.push_back(Size(1, rank_ - 2));
    const Shape& mask = operands_[3].shape;
    const int skip = static_cast<int>(sizes.size()) - Rank(operands_[3]);
    if (skip < 0) return Misfit(3);
    for (size_t d = 0; d < mask.size(); ++d) {
      if (mask[d] != 1 && mask[d] != sizes[skip + d]) return Misfit(3);
      op_->operands[3].dims.push_back(mask[d] == 1 ? std::vector<int>{}
                                                   : full[skip + d]);
    }
    return absl::OkStatus();
  }

  const OpCall& call_;
  OpInstance* op_;
  const std::vector<TensorType>& operands_;
  int rank_ = 0;
  DimFactors leading_;
  Shape sizes_;
  int queries_ = 0;
  int keys_ = 0;
};

}  // namespace

absl::Status BuildAttention(const OpRow&, const OpCall& call, OpInstance* op) {
  return AttentionReader(call, op).Read();
}

absl::Status BuildNorm(const OpRow& row, const OpCall& call, OpInstance* op) {
  const auto normalized = IntsArgument(call, 1, "normalized_shape");
  if (call.operands.empty() || !normalized) {
    return BadCall(call, "a tensor and the shape that is normalized", "others");
  }
  const TensorType& in = call.operands[0];
  const int skip = Rank(in) - static_cast<int>(normalized->size());
  DimFactors dims;
  for (int d = 0; d < Rank(in); ++d) {
    dims.push_back({AddFactor(
        op, in.shape[d], d < skip ? FactorKind::kPass : FactorKind::kWhole)});
  }
  if (skip < 0 ||
      Shape(in.shape.begin() + skip, in.shape.end()) != Shape(*normalized)) {
    return BadCall(
        call,
        absl::StrCat("a tensor that ends in ", ShapeToString(*normalized)),
        ToString(in));
  }
  op->operands.push_back({dims});
  for (size_t i = 1; i < call.operands.size(); ++i) {
    if (call.operands[i].shape != Shape(*normalized)) {
      return BadCall(call, ShapeToString(*normalized),
                     ToString(call.operands[i]));
    }
    op->operands.push_back({DimFactors(dims.begin() + skip, dims.end())});
  }
  ResultRule statistic{in, dims};
  for (int d = skip; d < Rank(in); ++d) {
    statistic.type.shape[d] = 1;
    statistic.dims[d].clear();
  }
  op->results.push_back({in, std::move(dims)});
  int statistics = 0;
  if (!row.spec.empty() && !absl::SimpleAtoi(row.spec, &statistics)) {
    return absl::InternalError("a norm whose row gives no number");
  }
  op->results.resize(1 + statistics, statistic);
  return absl::OkStatus();
}

}  // namespace shardplane
