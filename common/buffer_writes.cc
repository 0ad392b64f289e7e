#include "common/buffer_writes.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/call_arguments.h"
#include "common/errors.h"
#include "common/op_decompositions.h"

namespace shardplane {
namespace {

// aten.batch_norm(input, weight, bias, running_mean, running_var, training,
// momentum, eps, cudnn_enabled)
constexpr int kRunningMean = 3;
constexpr int kRunningVar = 4;
constexpr int kTraining = 5;
constexpr int kMomentum = 6;

// A call that batch_norm's arguments can be read from.
OpCall Plain(const ValueCall& call) {
  return {call.target, call.args, call.kwargs, {}, {}};
}

// The value that an argument is; -1: it is none.
ValueId ValueOf(const Argument* argument) {
  const auto* ref =
      argument == nullptr ? nullptr : std::get_if<NodeRef>(&argument->value);
  ValueId id = -1;
  return ref != nullptr && absl::SimpleAtoi(ref->name, &id) ? id : -1;
}

// Whether it takes the batch's statistics and keeps running ones.
bool KeepsStatistics(const ValueCall& call) {
  if (call.target != "aten.batch_norm.default") return false;
  const OpCall plain = Plain(call);
  return BoolArgument(plain, kTraining, "training") &&
         ValueOf(FindArgument(plain, kRunningMean, "running_mean")) >= 0;
}

}  // namespace

Flow BufferWrites::Newest(Flow flow) const {
  if (!written_) return flow;
  if (auto* id = std::get_if<ValueId>(&flow.v)) {
    const auto it = newest_.find(*id);
    if (it != newest_.end()) *id = it->second;
  } else if (auto* list = std::get_if<std::vector<Flow>>(&flow.v)) {
    for (Flow& item : *list) item = Newest(std::move(item));
  }
  return flow;
}

Argument BufferWrites::Newest(const Argument& argument) const {
  if (const auto it = newest_.find(ValueOf(&argument)); it != newest_.end()) {
    return RefTo(it->second);
  }
  if (const auto* list = std::get_if<ArgumentList>(&argument.value)) {
    ArgumentList items;
    for (const Argument& item : *list) items.push_back(Newest(item));
    return {std::move(items)};
  }
  return argument;
}

ValueCall BufferWrites::Newest(ValueCall call) const {
  if (!written_) return call;
  for (Argument& argument : call.args) argument = Newest(argument);
  for (auto& [name, argument] : call.kwargs) argument = Newest(argument);
  return call;
}

absl::StatusOr<std::vector<ValueId>> BufferWrites::Emit(ValueCall call) {
  if (call.target == "aten.copy_.default") return Copy(call);
  if (!KeepsStatistics(call)) return emitter_->Emit(Newest(std::move(call)));
  SP_RETURN_IF_ERROR(UpdateStatistics(call));
  for (const int index : {kRunningMean, kRunningVar}) {
    if (index < static_cast<int>(call.args.size())) call.args[index] = {};
  }
  call.kwargs.erase("running_mean");
  call.kwargs.erase("running_var");
  return emitter_->Emit(Newest(std::move(call)));
}

absl::StatusOr<ValueId> BufferWrites::BufferOf(const ValueCall& call,
                                               const Argument* argument) const {
  const ValueId id = ValueOf(argument);
  if (newest_.contains(id)) return id;
  return MakeError(
      absl::StatusCode::kInvalidArgument,
      absl::StrCat(call.fqn.empty() ? "the root module" : call.fqn, ": ",
                   call.target, " (", call.name,
                   ") expects a whole buffer to write to; got: ",
                   id < 0 ? "none" : emitter_->builder().value(id).name),
      {"WRITE_TO_NO_BUFFER", {{"fqn", call.fqn}, {"op", call.target}}});
}

absl::StatusOr<std::vector<ValueId>> BufferWrites::EmitAs(
    const ValueCall& like, const char* target, std::vector<Argument> args) {
  return emitter_->Emit({target, std::move(args), {}, {}, like.fqn, like.name});
}

absl::Status BufferWrites::Write(ValueId stored, const ValueCall& like,
                                 ValueId value) {
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> copied,
                      EmitAs(like, "aten.copy.default",
                             {RefTo(newest_[stored]), RefTo(value)}));
  // As the buffer lies: a sum is made, a cut gathered.
  SP_ASSIGN_OR_RETURN(
      newest_[stored],
      emitter_->builder().Demand(copied[0],
                                 emitter_->builder().value(stored).spec, {}));
  written_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ValueId>> BufferWrites::Copy(const ValueCall& call) {
  SP_ASSIGN_OR_RETURN(
      const ValueId stored,
      BufferOf(call, call.args.empty() ? nullptr : &call.args[0]));
  const ValueCall now = Newest(call);
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> tensors, ValuesOf(now));
  if (tensors.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "aten.copy_ expects a buffer and a tensor; got: ", tensors.size(),
        " tensors"));
  }
  SP_RETURN_IF_ERROR(Write(stored, call, tensors[1]));
  return std::vector<ValueId>{stored};
}

absl::Status BufferWrites::Blend(const ValueCall& call, int index, ValueId now,
                                 double momentum) {
  const OpCall plain = Plain(call);
  const Argument* running = FindArgument(
      plain, index, index == kRunningMean ? "running_mean" : "running_var");
  SP_ASSIGN_OR_RETURN(const ValueId stored, BufferOf(call, running));
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> old,
                      EmitAs(call, "aten.mul.Tensor",
                             {RefTo(newest_[stored]), Argument{1 - momentum}}));
  SP_ASSIGN_OR_RETURN(
      const std::vector<ValueId> own,
      EmitAs(call, "aten.mul.Tensor", {RefTo(now), Argument{momentum}}));
  SP_ASSIGN_OR_RETURN(
      const std::vector<ValueId> sum,
      EmitAs(call, "aten.add.Tensor", {RefTo(old[0]), RefTo(own[0])}));
  return Write(stored, call, sum[0]);
}

// Of all dims but the channels'. The variance is the unbiased one.
absl::Status BufferWrites::UpdateStatistics(const ValueCall& call) {
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> tensors,
                      ValuesOf(Newest(call)));
  SP_ASSIGN_OR_RETURN(const std::vector<ValueId> input,
                      EmitAs(call, "aten.detach.default", {RefTo(tensors[0])}));
  ArgumentList dims;
  const Shape& shape = emitter_->builder().value(tensors[0]).type.shape;
  for (int64_t dim = 0; dim < static_cast<int64_t>(shape.size()); ++dim) {
    if (dim != 1) dims.push_back({dim});
  }
  SP_ASSIGN_OR_RETURN(
      const std::vector<ValueId> now,
      emitter_->Emit({"aten.var_mean.correction",
                      {RefTo(input[0]), Argument{std::move(dims)}},
                      {{"correction", Argument{int64_t{1}}}},
                      {},
                      call.fqn,
                      call.name}));
  const OpCall plain = Plain(call);
  const std::optional<double> momentum =
      DoubleArgument(plain, kMomentum, "momentum");
  if (!momentum.has_value()) {
    return absl::InvalidArgumentError("batch_norm expects a momentum");
  }
  SP_RETURN_IF_ERROR(Blend(call, kRunningMean, now[1], *momentum));
  return Blend(call, kRunningVar, now[0], *momentum);
}

void BufferWrites::Finish() {
  for (const auto& [stored, value] : newest_) {
    if (value != stored) emitter_->builder().Update(stored, value);
  }
}

}  // namespace shardplane
