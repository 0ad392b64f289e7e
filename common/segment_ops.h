// A segment's ops, of which several become one.
#ifndef SHARDPLANE_COMMON_SEGMENT_OPS_H_
#define SHARDPLANE_COMMON_SEGMENT_OPS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/op_values.h"
#include "common/sharded_program.h"

namespace shardplane {

using Arguments = std::vector<ProgramArgument>;

inline std::optional<ValueId> ValueOf(const ProgramArgument& argument) {
  const auto* ref = std::get_if<ValueRef>(&argument.value);
  return ref == nullptr ? std::nullopt : std::optional(ref->id);
}

inline std::optional<double> NumberOf(const ProgramArgument& argument) {
  if (const auto* number = std::get_if<double>(&argument.value)) return *number;
  const auto* whole = std::get_if<int64_t>(&argument.value);
  return whole == nullptr ? std::nullopt : std::optional<double>(*whole);
}

inline bool IsNumber(const ProgramArgument& argument, double number) {
  return NumberOf(argument) == number;
}

inline bool IsLastDim(const ProgramArgument& argument, int rank) {
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
    return made.has_value() && IsInner(at(*made).results[0], uses)
               ? made
               : std::nullopt;
  }
  bool IsInner(ValueId id, int uses = 1) const {
    const auto used = uses_.find(id);
    return used != uses_.end() && used->second == uses &&
           std::ranges::find(segment_.outputs, id) == segment_.outputs.end();
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

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_SEGMENT_OPS_H_
