// What a program makes of a dim: the dims that it is viewed as, the parts that
// it is taken apart into, and what of these must stay whole. Used by
// packing.cc.
#ifndef SHARDPLANE_COMMON_DIM_STRUCTURE_H_
#define SHARDPLANE_COMMON_DIM_STRUCTURE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "common/placement.h"

namespace shardplane {

// Of several demands the last of these holds.
enum class Wholeness {
  kFree,   // may be cut
  kWhole,  // must not be cut
  kHead,   // neither, for attention asks for it: the width of a head
};
struct DimFactor {
  int64_t size = 1;
  Wholeness wholeness = Wholeness::kFree;
  friend bool operator==(const DimFactor&, const DimFactor&) = default;
};
// Factors, major first; of size 1 none.
using DimPart = std::vector<DimFactor>;
int64_t SizeOf(const DimPart& part);

// Parts, one after the other. A value.
class DimStructure {
 public:
  // One part of one factor; of size 1, of none.
  static DimStructure Of(int64_t size, Wholeness wholeness = Wholeness::kFree);
  explicit DimStructure(std::vector<DimPart> parts)
      : parts_(std::move(parts)) {}

  const std::vector<DimPart>& parts() const { return parts_; }
  int64_t size() const;
  // Nothing is known: one free factor.
  bool IsPlain() const;

  // What both say. Where they cannot both hold, one whole factor.
  DimStructure And(const DimStructure& other) const;

  // The factors of these sizes that the dim is made of, major first; nullopt if
  // it has no such edges.
  std::optional<std::vector<DimStructure>> Factored(
      absl::Span<const int64_t> sizes) const;
  static DimStructure Product(absl::Span<const DimStructure> factors);

  // Parts of these sizes; nullopt as above.
  std::optional<std::vector<DimStructure>> Parted(
      absl::Span<const int64_t> sizes) const;
  static DimStructure Sum(absl::Span<const DimStructure> parts);

  // How the dim is cut over `ranks` so that what must stay whole does: of each
  // part the first free factor, in units of what is behind it. Where there are
  // fewer heads than ranks, groups of ranks share one, or some ranks have none.
  // nullopt: nothing of it can be cut.
  //   {3 whole, 6, 8 head} over 2 -> blocks of 48, 48 and 48 in units of 8
  //   {2, 8 head} over 4 -> 2*8/2, or 2*8
  enum class FewHeads { kShared, kNotShared };
  std::optional<Blocks> BlocksOver(int ranks, FewHeads few) const;

  friend bool operator==(const DimStructure&, const DimStructure&) = default;

 private:
  std::vector<DimPart> parts_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_DIM_STRUCTURE_H_
