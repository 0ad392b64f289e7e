#include "worker/id_arguments.h"

#include <optional>
#include <utility>

#include "ATen/ExpandUtils.h"
#include "ATen/WrapDimUtils.h"
#include "ATen/core/List.h"
#include "ATen/core/Tensor.h"
#include "worker/class_ids.h"

namespace shardplane {
namespace {

using Arguments = std::vector<c10::IValue>;

bool AreIds(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined() &&
         at::isIntegralType(value.toTensor().scalar_type(),
                            /*includeBool=*/false);
}

void Check(const char* what, const IdRange& range, c10::IValue& ids) {
  if (AreIds(ids)) ids = CheckedIds(what, ids.toTensor(), range);
}

// The size of a dim, which may be counted from the end.
int64_t SizeAt(const at::Tensor& tensor, int64_t dim) {
  return tensor.dim() == 0 ? 1
                           : tensor.size(at::maybe_wrap_dim(dim, tensor.dim()));
}

// (logits, target, weight, reduction, ignore_index, …)
void CheckClasses(Arguments& arguments) {
  const at::Tensor& logits = arguments[0].toTensor();
  if (logits.dim() == 0) return;
  Check("Target", {logits.size(logits.dim() > 1 ? 1 : 0), arguments[4].toInt()},
        arguments[1]);
}

// (self, dim, index, …)
template <bool kFromEnd = false>
void CheckAlongDim(Arguments& arguments) {
  Check("Index",
        {.count = SizeAt(arguments[0].toTensor(), arguments[1].toInt()),
         .from_end = kFromEnd},
        arguments[2]);
}

// (ids, classes)
void CheckOneHot(Arguments& arguments) {
  Check("Class", {.count = arguments[1].toInt()}, arguments[0]);
}

// (self, indices, dim or None: of all elements). Along a dim all are taken, by
// their remainders.
void CheckTakenAlong(Arguments& arguments) {
  if (!arguments[2].isNone()) return;
  Check("Index", {.count = arguments[0].toTensor().numel()}, arguments[1]);
}

// (self, indices of all its elements, …)
void CheckOfAll(Arguments& arguments) {
  Check("Index", {.count = arguments[0].toTensor().numel(), .from_end = true},
        arguments[1]);
}

// (scores of classes [C] or [N, C], class of each row, …)
void CheckMargin(Arguments& arguments) {
  Check("Target", {.count = SizeAt(arguments[0].toTensor(), -1)}, arguments[1]);
}

// The same, a row's classes ending at -1.
void CheckMargins(Arguments& arguments) {
  Check("Target", {.count = SizeAt(arguments[0].toTensor(), -1), .ignored = -1},
        arguments[1]);
}

// (values, places in the output, the output's size)
void CheckUnpooled(Arguments& arguments) {
  Check("Index", {.count = c10::multiply_integers(arguments[2].toIntVector())},
        arguments[1]);
}

// (self, mask, source of the elements in its place). Too many are none.
void CheckMaskScattered(Arguments& arguments) {
  const at::Tensor& self = arguments[0].toTensor();
  const at::Tensor& mask = arguments[1].toTensor();
  if (mask.scalar_type() != at::kBool ||
      !at::are_expandable(self.sizes(), mask.sizes())) {
    return;
  }
  const at::Tensor masked =
      mask.expand(at::infer_size(self.sizes(), mask.sizes())).sum();
  const at::Tensor checked =
      CheckedIds("Number of masked elements", masked,
                 {.count = arguments[2].toTensor().numel() + 1});
  if (checked.is_same(masked)) return;
  arguments[1] = mask.logical_and(checked.eq(masked));
}

// (self, indices of its dims: ids, masks, which are of several, or None, …)
void CheckOfDims(Arguments& arguments) {
  const at::Tensor& self = arguments[0].toTensor();
  c10::List<std::optional<at::Tensor>> checked;
  int64_t dim = 0;
  for (const c10::IValue& item : arguments[1].toListRef()) {
    c10::IValue ids = item;
    const bool is_tensor = ids.isTensor() && ids.toTensor().defined();
    const bool is_mask =
        is_tensor && (ids.toTensor().scalar_type() == at::kBool ||
                      ids.toTensor().scalar_type() == at::kByte);
    if (is_tensor && !is_mask && dim < self.dim()) {
      Check("Index", {.count = self.size(dim), .from_end = true}, ids);
    }
    dim += is_mask ? ids.toTensor().dim() : 1;
    checked.push_back(is_tensor ? std::optional(ids.toTensor())
                                : std::optional<at::Tensor>());
  }
  arguments[1] = std::move(checked);
}

// Embeddings are shardplane.embedding, and check their own.
constexpr std::pair<absl::string_view, CheckIdArguments> kOperators[] = {
    {"aten._unsafe_index.Tensor", CheckOfDims},
    {"aten._unsafe_index_put.default", CheckOfDims},
    {"aten.cross_entropy_loss.default", CheckClasses},
    {"aten.gather.default", CheckAlongDim<>},
    {"aten.index.Tensor", CheckOfDims},
    {"aten.index_add.default", CheckAlongDim<>},
    {"aten.index_copy.default", CheckAlongDim<>},
    {"aten.index_fill.int_Scalar", CheckAlongDim</*kFromEnd=*/true>},
    {"aten.index_fill.int_Tensor", CheckAlongDim</*kFromEnd=*/true>},
    {"aten.index_put.default", CheckOfDims},
    {"aten.index_reduce.default", CheckAlongDim<>},
    {"aten.index_select.default", CheckAlongDim<>},
    {"aten.masked_scatter.default", CheckMaskScattered},
    {"aten.max_unpool2d.default", CheckUnpooled},
    {"aten.multi_margin_loss.default", CheckMargin},
    {"aten.multilabel_margin_loss.default", CheckMargins},
    {"aten.nll_loss_nd.default", CheckClasses},
    {"aten.one_hot.default", CheckOneHot},
    {"aten.put.default", CheckOfAll},
    {"aten.scatter.reduce", CheckAlongDim<>},
    {"aten.scatter.src", CheckAlongDim<>},
    {"aten.scatter.value", CheckAlongDim<>},
    {"aten.scatter.value_reduce", CheckAlongDim<>},
    {"aten.scatter_add.default", CheckAlongDim<>},
    {"aten.scatter_reduce.two", CheckAlongDim<>},
    {"aten.take.default", CheckOfAll},
    {"aten.take_along_dim.default", CheckTakenAlong},
};

}  // namespace

CheckIdArguments FindIdArguments(absl::string_view target) {
  for (const auto& [name, check] : kOperators) {
    if (name == target) return check;
  }
  return nullptr;
}

}  // namespace shardplane
