#include "common/op_rules.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/op_builders.h"
#include "common/op_table.h"

namespace shardplane {
namespace {

absl::Status Refused(const OpCall& call, Rowless kind) {
  const auto error = [&](absl::string_view reason, absl::string_view why) {
    return MakeError(absl::StatusCode::kUnimplemented,
                     absl::StrCat(why, "; got: ", call.target),
                     {std::string(reason), {{"op", call.target}}});
  };
  if (kind == Rowless::kRandom) return RandomOp(call);
  if (kind == Rowless::kDataDependent) {
    return error("DATA_DEPENDENT_SHAPE",
                 "the shape of the op's result depends on values, but a "
                 "program's shapes are fixed when it is compiled");
  }
  return error("OP_UNSUPPORTED",
               "the op has no sharding rule and is not known to be safe to run "
               "alike on every rank");
}

absl::Status CheckRecorded(const OpCall& call, OpInstance* op) {
  if (call.results.empty()) return absl::OkStatus();
  if (call.results.size() != op->results.size()) {
    return BadCall(call, absl::StrCat(op->results.size(), " results"),
                   absl::StrCat(call.results.size(), " recorded"));
  }
  for (size_t i = 0; i < op->results.size(); ++i) {
    TensorType& type = op->results[i].type;
    if (type.shape != call.results[i].shape) {
      return BadCall(call, absl::StrCat("result ", ShapeToString(type.shape)),
                     absl::StrCat(ToString(call.results[i]), " recorded"));
    }
    type.dtype = call.results[i].dtype;
  }
  return absl::OkStatus();
}

void CollectTensors(const Argument& argument, std::vector<NodeRef>* out) {
  if (const auto* ref = std::get_if<NodeRef>(&argument.value)) {
    out->push_back(*ref);
  } else if (const auto* list = std::get_if<ArgumentList>(&argument.value)) {
    for (const Argument& item : *list) CollectTensors(item, out);
  }
}

}  // namespace

absl::StatusOr<OpInstance> MakeOpInstance(const OpCall& call) {
  OpInstance op;
  op.target = call.target;
  op.args = call.args;
  op.kwargs = call.kwargs;
  if (const OpRow* row = FindRow(call.target)) {
    SP_RETURN_IF_ERROR(row->build(*row, call, &op));
  } else {
    const Rowless kind = KindOfRowless(call.target);
    if (kind != Rowless::kSafe) return Refused(call, kind);
    op.has_row = false;
    SP_RETURN_IF_ERROR(BuildWhole({}, call, &op));
  }
  if (call.target == "aten.detach.default") op.differentiable = false;
  SP_RETURN_IF_ERROR(CheckRecorded(call, &op));
  return op;
}

std::vector<NodeRef> TensorArguments(
    const std::vector<Argument>& args,
    const absl::btree_map<std::string, Argument>& kwargs) {
  std::vector<NodeRef> refs;
  for (const Argument& arg : args) CollectTensors(arg, &refs);
  for (const auto& [name, arg] : kwargs) CollectTensors(arg, &refs);
  return refs;
}

}  // namespace shardplane
