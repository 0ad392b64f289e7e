#include "worker/frozen_argument.h"

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/ScalarOps.h"
#include "ATen/core/jit_type.h"
#include "c10/core/Layout.h"
#include "c10/core/MemoryFormat.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

using c10::IValue;
using c10::TypeKind;

constexpr std::pair<const char*, c10::MemoryFormat> kMemoryFormats[] = {
    {"contiguous_format", c10::MemoryFormat::Contiguous},
    {"preserve_format", c10::MemoryFormat::Preserve},
    {"channels_last", c10::MemoryFormat::ChannelsLast},
    {"channels_last_3d", c10::MemoryFormat::ChannelsLast3d},
};

// Names as Python prints them too: "torch.contiguous_format".
std::string WithoutTorch(const std::string& name) {
  return name.rfind("torch.", 0) == 0 ? name.substr(6) : name;
}

std::optional<int64_t> AsInt(const ProgramArgument& argument,
                             const OperatorContext& context) {
  if (const auto* i = std::get_if<int64_t>(&argument.value)) return *i;
  if (const auto* b = std::get_if<bool>(&argument.value)) return *b ? 1 : 0;
  if (const auto* offset = std::get_if<LocalOffset>(&argument.value)) {
    return Evaluate(*offset, *context.mesh, context.coordinate);
  }
  if (const auto* size = std::get_if<LocalSize>(&argument.value)) {
    return Evaluate(*size, *context.mesh, context.coordinate);
  }
  return std::nullopt;
}

std::optional<double> AsDouble(const ProgramArgument& argument,
                               const OperatorContext& context) {
  if (const auto* d = std::get_if<double>(&argument.value)) return *d;
  if (const std::optional<int64_t> i = AsInt(argument, context)) {
    return static_cast<double>(*i);
  }
  return std::nullopt;
}

std::optional<c10::Scalar> AsScalar(const ProgramArgument& argument,
                                    const OperatorContext& context) {
  if (const auto* d = std::get_if<double>(&argument.value)) return *d;
  if (const auto* b = std::get_if<bool>(&argument.value)) return *b;
  if (const std::optional<int64_t> i = AsInt(argument, context)) return *i;
  return std::nullopt;
}

std::optional<IValue> AsEnum(const ProgramArgument& argument, TypeKind kind,
                             const OperatorContext& context) {
  if (const auto* dtype = std::get_if<DType>(&argument.value)) {
    if (kind == TypeKind::ScalarTypeType) return ToScalarType(*dtype);
  }
  if (const auto* name = std::get_if<std::string>(&argument.value)) {
    const std::string bare = WithoutTorch(*name);
    if (kind == TypeKind::LayoutType && bare == "strided") {
      return IValue(c10::kStrided);
    }
    for (const auto& [text, format] : kMemoryFormats) {
      if (kind == TypeKind::MemoryFormatType && bare == text) return format;
    }
    return std::nullopt;
  }
  // torch.export writes some of them as numbers.
  if (const std::optional<int64_t> i = AsInt(argument, context)) return *i;
  return std::nullopt;
}

std::optional<IValue> AsSingle(const ProgramArgument& argument,
                               const c10::Type& type,
                               const OperatorContext& context) {
  switch (type.kind()) {
    case TypeKind::IntType:
    case TypeKind::SymIntType:
      if (auto i = AsInt(argument, context)) return IValue(*i);
      return std::nullopt;
    case TypeKind::FloatType:
      if (auto d = AsDouble(argument, context)) return IValue(*d);
      return std::nullopt;
    case TypeKind::NumberType:
      if (auto scalar = AsScalar(argument, context)) return IValue(*scalar);
      return std::nullopt;
    case TypeKind::TensorType:
      if (auto scalar = AsScalar(argument, context)) {
        return IValue(at::native::wrapped_scalar_tensor(*scalar));
      }
      return std::nullopt;
    case TypeKind::BoolType:
    case TypeKind::SymBoolType:
      if (auto i = AsInt(argument, context)) return IValue(*i != 0);
      return std::nullopt;
    case TypeKind::StringType:
      if (auto* text = std::get_if<std::string>(&argument.value)) {
        return IValue(*text);
      }
      return std::nullopt;
    case TypeKind::DeviceObjType:
      return IValue(context.device);
    case TypeKind::ScalarTypeType:
    case TypeKind::LayoutType:
    case TypeKind::MemoryFormatType:
      return AsEnum(argument, type.kind(), context);
    default:
      return std::nullopt;
  }
}

// The items of a list argument; a single one stands for all of a fixed size.
std::vector<ProgramArgument> ItemsOf(const ProgramArgument& argument,
                                     const c10::Argument& schema) {
  if (auto* list = std::get_if<ProgramArgumentList>(&argument.value)) {
    return *list;
  }
  return std::vector<ProgramArgument>(schema.N().value_or(1), argument);
}

std::optional<IValue> AsList(const ProgramArgument& argument,
                             const c10::Argument& schema,
                             const c10::Type& element,
                             const OperatorContext& context) {
  const bool floats = element.kind() == TypeKind::FloatType;
  const bool bools = element.kind() == TypeKind::BoolType;
  c10::List<int64_t> ints_list;
  c10::List<double> floats_list;
  c10::List<bool> bools_list;
  c10::List<c10::Scalar> scalars;
  for (const ProgramArgument& item : ItemsOf(argument, schema)) {
    const std::optional<IValue> value = AsSingle(item, element, context);
    if (!value.has_value()) return std::nullopt;
    if (floats) {
      floats_list.push_back(value->toDouble());
    } else if (bools) {
      bools_list.push_back(value->toBool());
    } else if (element.kind() == TypeKind::NumberType) {
      scalars.push_back(value->toScalar());
    } else {
      ints_list.push_back(value->toInt());
    }
  }
  if (floats) return IValue(floats_list);
  if (bools) return IValue(bools_list);
  if (element.kind() == TypeKind::NumberType) return IValue(scalars);
  return IValue(ints_list);
}

}  // namespace

const c10::Type& WithoutOptional(const c10::Type& type) {
  const c10::Type* bare = &type;
  while (bare->kind() == TypeKind::OptionalType) {
    bare = bare->castRaw<c10::OptionalType>()->getElementType().get();
  }
  return *bare;
}

std::optional<IValue> FreezeArgument(const ProgramArgument& argument,
                                     const c10::Argument& schema,
                                     const OperatorContext& context) {
  const c10::Type& type = WithoutOptional(*schema.real_type());
  const bool optional = schema.real_type()->kind() == TypeKind::OptionalType;
  if (std::holds_alternative<std::monostate>(argument.value)) {
    if (type.kind() == TypeKind::DeviceObjType) return IValue(context.device);
    return optional ? std::optional<IValue>(IValue()) : std::nullopt;
  }
  if (type.kind() == TypeKind::ListType) {
    const c10::Type& element = *type.castRaw<c10::ListType>()->getElementType();
    return AsList(argument, schema, element, context);
  }
  return AsSingle(argument, type, context);
}

std::optional<IValue> DefaultArgument(const c10::Argument& schema,
                                      const OperatorContext& context) {
  if (WithoutOptional(*schema.real_type()).kind() == TypeKind::DeviceObjType) {
    return IValue(context.device);
  }
  if (schema.default_value().has_value()) return *schema.default_value();
  return std::nullopt;
}

}  // namespace shardplane
