#include "proto/convert/plan.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

absl::StatusOr<ParallelizePlan> PlanFromProto(
    const pb::ParallelizePlan& message, const FieldPath& field, int depth);

absl::StatusOr<PlanValue> StylesFromProto(const pb::PlanValue::Styles& message,
                                          const FieldPath& field) {
  std::vector<ParallelStyle> styles;
  for (int i = 0; i < message.styles_size(); ++i) {
    SP_ASSIGN_OR_RETURN(
        ParallelStyle style,
        FromProto(message.styles(i), field.Element("styles", i)));
    styles.push_back(std::move(style));
  }
  return PlanValue(std::move(styles));
}

absl::StatusOr<PlanValue> ValueFromProto(const pb::PlanValue& message,
                                         const FieldPath& field, int depth) {
  switch (message.kind_case()) {
    case pb::PlanValue::kNone:
      return PlanValue(PlanNone{});
    case pb::PlanValue::kStyle: {
      SP_ASSIGN_OR_RETURN(ParallelStyle style,
                          FromProto(message.style(), field.Member("style")));
      return PlanValue(std::vector<ParallelStyle>{std::move(style)});
    }
    case pb::PlanValue::kStyles:
      return StylesFromProto(message.styles(), field.Member("styles"));
    case pb::PlanValue::kPlan: {
      SP_ASSIGN_OR_RETURN(
          ParallelizePlan plan,
          PlanFromProto(message.plan(), field.Member("plan"), depth + 1));
      return PlanValue(std::move(plan));
    }
    case pb::PlanValue::KIND_NOT_SET:
      break;
  }
  return MissingOneof(field, "none, style, styles, plan");
}

absl::StatusOr<ParallelizePlan> PlanFromProto(
    const pb::ParallelizePlan& message, const FieldPath& field, int depth) {
  if (depth > kMaxPlanDepth) {
    return InvalidField(field,
                        absl::StrCat("expected plans at most ", kMaxPlanDepth,
                                     " deep, got: deeper ones"));
  }
  SP_RETURN_IF_ERROR(CheckCount(field.Member("entries"), message.entries_size(),
                                kMaxPlanEntries));
  ParallelizePlan plan;
  plan.entries.reserve(message.entries_size());
  for (int i = 0; i < message.entries_size(); ++i) {
    const pb::PlanEntry& entry = message.entries(i);
    const FieldPath element = field.Element("entries", i);
    SP_ASSIGN_OR_RETURN(
        PlanValue value,
        ValueFromProto(entry.value(), element.Member("value"), depth));
    plan.entries.push_back({entry.pattern(), std::move(value)});
  }
  return plan;
}

// Writes one alternative of a PlanValue.
struct ValueWriter {
  pb::PlanValue& out;

  void operator()(const PlanNone&) { out.mutable_none(); }
  void operator()(const std::vector<ParallelStyle>& styles) {
    if (styles.size() == 1) {
      *out.mutable_style() = ToProto(styles.front());
      return;
    }
    pb::PlanValue::Styles* list = out.mutable_styles();
    for (const ParallelStyle& style : styles) {
      *list->add_styles() = ToProto(style);
    }
  }
  void operator()(const ParallelizePlan& plan) {
    *out.mutable_plan() = ToProto(plan);
  }
};

}  // namespace

absl::StatusOr<ParallelizePlan> FromProto(const v1::ParallelizePlan& message,
                                          const FieldPath& field) {
  return PlanFromProto(message, field, 1);
}

v1::ParallelizePlan ToProto(const ParallelizePlan& plan) {
  pb::ParallelizePlan message;
  for (const PlanEntry& entry : plan.entries) {
    pb::PlanEntry* out = message.add_entries();
    out->set_pattern(entry.pattern);
    std::visit(ValueWriter{*out->mutable_value()}, entry.value);
  }
  return message;
}

}  // namespace shardplane
