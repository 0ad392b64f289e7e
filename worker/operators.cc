#include "worker/operators.h"

#include <optional>
#include <utility>

#include "ATen/core/jit_type.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "worker/data_faults.h"
#include "worker/frozen_argument.h"
#include "worker/sharded_operators.h"

namespace shardplane {
namespace {

absl::Status Bad(const std::string& name, absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument,
                   absl::StrCat(name, ": ", what),
                   {.reason = "BAD_OPERATOR", .metadata = {{"op", name}}});
}

// "aten.linear.default" -> "aten::linear" and "".
std::optional<c10::OperatorHandle> FindOperator(const std::string& target) {
  std::vector<std::string> parts = absl::StrSplit(target, '.');
  if (parts.size() < 3) return std::nullopt;
  std::string overload = parts.back() == "default" ? "" : parts.back();
  const std::string name = absl::StrCat(
      parts[0], "::", absl::StrJoin(parts.begin() + 1, parts.end() - 1, "."));
  RegisterShardedOperators();
  return c10::Dispatcher::singleton().findSchema({name, overload});
}

const ProgramArgument* FindArgument(const Op& op, size_t position,
                                    const std::string& name) {
  if (position < op.args.size()) return &op.args[position];
  for (const auto& [key, value] : op.kwargs) {
    if (key == name) return &value;
  }
  return nullptr;
}

// Of a list, or an optional one, the type of its elements; nullptr: it is none.
const c10::Type* ElementOf(const c10::Type& type) {
  const c10::Type& bare = WithoutOptional(type);
  return bare.kind() == c10::TypeKind::ListType
             ? bare.castRaw<c10::ListType>()->getElementType().get()
             : nullptr;
}

// The values of an argument for a list of tensors; nullopt: it is not one.
std::optional<std::vector<const ProgramArgument*>> TensorItems(
    const ProgramArgument& argument) {
  const auto* list = std::get_if<ProgramArgumentList>(&argument.value);
  if (list == nullptr) return std::nullopt;
  std::vector<const ProgramArgument*> items;
  for (const ProgramArgument& item : *list) {
    if (!std::holds_alternative<ValueRef>(item.value) &&
        !std::holds_alternative<std::monostate>(item.value)) {
      return std::nullopt;
    }
    items.push_back(&item);
  }
  return items;
}

}  // namespace

absl::StatusOr<Slot> PreparedOp::Read(
    const ProgramArgument& item, const c10::Argument& schema,
    absl::FunctionRef<Slot(ValueId)> slot_of) {
  const auto* ref = std::get_if<ValueRef>(&item.value);
  if (ref == nullptr) return kNoSlot;
  const Slot slot = slot_of(ref->id);
  if (slot == kNoSlot) {
    return Bad(name_, absl::StrCat("argument ", schema.name(),
                                   ": expected a value that lies in its "
                                   "segment, got: %",
                                   ref->id));
  }
  inputs_.push_back(slot);
  return slot;
}

absl::StatusOr<PreparedOp::TensorListArgument> PreparedOp::FreezeTensors(
    const std::vector<const ProgramArgument*>& items,
    const c10::Argument& schema, absl::FunctionRef<Slot(ValueId)> slot_of) {
  TensorListArgument list;
  list.optional_elements =
      ElementOf(*schema.real_type())->kind() == c10::TypeKind::OptionalType;
  for (const ProgramArgument* item : items) {
    SP_ASSIGN_OR_RETURN(const Slot slot, Read(*item, schema, slot_of));
    list.slots.push_back(slot);
  }
  return list;
}

absl::StatusOr<PreparedOp::ArgumentTemplate> PreparedOp::Freeze(
    const ProgramArgument& argument, const c10::Argument& schema,
    const OperatorContext& context, absl::FunctionRef<Slot(ValueId)> slot_of) {
  const c10::Type& type = WithoutOptional(*schema.real_type());
  if (std::holds_alternative<ValueRef>(argument.value)) {
    if (type.kind() != c10::TypeKind::TensorType) {
      return Bad(name_, absl::StrCat("argument ", schema.name(), ": expected ",
                                     type.str(), ", got: a tensor"));
    }
    SP_ASSIGN_OR_RETURN(const Slot slot, Read(argument, schema, slot_of));
    return TensorArgument{slot};
  }
  const c10::Type* element = ElementOf(*schema.real_type());
  const auto items = TensorItems(argument);
  if (element != nullptr && items.has_value() &&
      WithoutOptional(*element).kind() == c10::TypeKind::TensorType) {
    return FreezeTensors(*items, schema, slot_of);
  }
  std::optional<c10::IValue> frozen = FreezeArgument(argument, schema, context);
  if (frozen.has_value()) return *std::move(frozen);
  return Bad(name_,
             absl::StrCat("argument ", schema.name(), ": expected ",
                          schema.real_type()->str(), ", got: another kind"));
}

absl::Status PreparedOp::AddArguments(
    const Op& op, const OperatorContext& context,
    absl::FunctionRef<Slot(ValueId)> slot_of) {
  const std::vector<c10::Argument>& schema = handle_.schema().arguments();
  size_t used = 0;
  for (size_t i = 0; i < schema.size(); ++i) {
    // Keyword-only arguments come after the positional ones in a schema.
    const ProgramArgument* argument = FindArgument(op, i, schema[i].name());
    if (argument != nullptr) {
      SP_ASSIGN_OR_RETURN(ArgumentTemplate frozen,
                          Freeze(*argument, schema[i], context, slot_of));
      arguments_.push_back(std::move(frozen));
      ++used;
      continue;
    }
    std::optional<c10::IValue> value = DefaultArgument(schema[i], context);
    if (!value.has_value()) {
      return Bad(name_, absl::StrCat("argument ", schema[i].name(),
                                     ": expected one, got: none"));
    }
    arguments_.push_back(*std::move(value));
  }
  if (used != op.args.size() + op.kwargs.size()) {
    return Bad(name_, absl::StrCat("expected ", used,
                                   " arguments of its schema, got: ",
                                   op.args.size() + op.kwargs.size()));
  }
  return absl::OkStatus();
}

absl::StatusOr<PreparedOp> PreparedOp::Create(
    const Op& op, const OperatorContext& context,
    absl::FunctionRef<Slot(ValueId)> slot_of) {
  const std::string name =
      op.fqn.empty() ? op.target : absl::StrCat(op.target, " in ", op.fqn);
  std::optional<c10::OperatorHandle> handle = FindOperator(op.target);
  if (!handle.has_value()) {
    return MakeError(
        absl::StatusCode::kNotFound,
        absl::StrCat(name,
                     ": expected an operator of LibTorch, got: ", op.target),
        {.reason = "OPERATOR_NOT_FOUND", .metadata = {{"op", op.target}}});
  }
  PreparedOp prepared(*handle, name);
  SP_RETURN_IF_ERROR(prepared.AddArguments(op, context, slot_of));
  prepared.check_ids_ = FindIdArguments(op.target);
  for (const ValueId id : op.results) prepared.results.push_back(slot_of(id));
  return prepared;
}

c10::IValue PreparedOp::Gather(const TensorListArgument& list,
                               absl::Span<const at::Tensor> frame) {
  c10::List<at::Tensor> tensors;
  c10::List<std::optional<at::Tensor>> optionals;
  for (const Slot slot : list.slots) {
    if (!list.optional_elements) {
      tensors.push_back(slot == kNoSlot ? at::Tensor() : frame[slot]);
    } else if (slot == kNoSlot) {
      optionals.push_back(std::nullopt);
    } else {
      optionals.push_back(frame[slot]);
    }
  }
  return list.optional_elements ? c10::IValue(std::move(optionals))
                                : c10::IValue(std::move(tensors));
}

void PreparedOp::Call(absl::Span<at::Tensor> frame) const {
  std::vector<c10::IValue> stack;
  stack.reserve(arguments_.size());
  for (const ArgumentTemplate& argument : arguments_) {
    if (const auto* constant = std::get_if<c10::IValue>(&argument)) {
      stack.push_back(*constant);
    } else if (const auto* one = std::get_if<TensorArgument>(&argument)) {
      stack.emplace_back(frame[one->slot]);
    } else {
      stack.push_back(Gather(std::get<TensorListArgument>(argument), frame));
    }
  }
  try {
    if (check_ids_ != nullptr) check_ids_(stack);
    handle_.callBoxed(stack);
    StoreResults(stack, frame);
    if (DataFaults* const faults = DataFaults::Current()) faults->Locate(name_);
  } catch (c10::Error& error) {
    error.add_context(name_);
    throw;
  }
}

void PreparedOp::StoreResults(const std::vector<c10::IValue>& stack,
                              absl::Span<at::Tensor> frame) const {
  size_t next = 0;
  const auto store = [&](const at::Tensor& tensor) {
    if (next < results.size() && results[next] != kNoSlot) {
      frame[results[next]] = tensor;
    }
    ++next;
  };
  for (const c10::IValue& value : stack) {
    if (value.isTensor()) {
      store(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) store(tensor);
    }
  }
  TORCH_CHECK(next >= results.size(), "expected ", results.size(),
              " tensor results, got: ", next);
}

}  // namespace shardplane
