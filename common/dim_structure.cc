#include "common/dim_structure.h"

#include <algorithm>
#include <utility>

#include "common/factor_cuts.h"

namespace shardplane {
namespace {

// A part that says nothing about where it may be parted.
bool IsOneFree(const DimPart& part) {
  return part.empty() ||
         (part.size() == 1 && part[0].wholeness == Wholeness::kFree);
}

DimPart OnePart(int64_t size, Wholeness wholeness) {
  return size == 1 ? DimPart{} : DimPart{{size, wholeness}};
}

// The factors of the first `size` elements' worth, taken off the front of
// `part`; nullopt if there is no such edge.
std::optional<DimPart> TakeFront(int64_t size, DimPart* part) {
  DimPart taken;
  while (size > 1) {
    if (part->empty()) return std::nullopt;
    DimFactor& front = part->front();
    const int64_t least = std::min(front.size, size);
    if (front.size % least != 0 || size % least != 0) return std::nullopt;
    taken.push_back({least, front.wholeness});
    size /= least;
    front.size /= least;
    if (front.size == 1) part->erase(part->begin());
  }
  return taken;
}

// Factors of both; nullopt where their edges differ.
std::optional<DimPart> Refined(DimPart a, DimPart b) {
  DimPart both;
  while (!a.empty() && !b.empty()) {
    const int64_t least = std::min(a[0].size, b[0].size);
    const Wholeness wholeness = std::max(a[0].wholeness, b[0].wholeness);
    if (!TakeFront(least, &a) || !TakeFront(least, &b)) return std::nullopt;
    both.push_back({least, wholeness});
  }
  if (!a.empty() || !b.empty()) return std::nullopt;
  return both;
}

// Of all of it, where that is one factor; of such, edges mean nothing.
Wholeness WholenessOf(const DimStructure& dim) {
  const bool one = dim.parts().size() == 1 && dim.parts()[0].size() == 1;
  return one ? dim.parts()[0][0].wholeness : Wholeness::kFree;
}

std::vector<int64_t> SizesOf(const std::vector<DimPart>& parts) {
  std::vector<int64_t> sizes;
  for (const DimPart& part : parts) sizes.push_back(SizeOf(part));
  return sizes;
}

// The sizes of parts that end wherever those of one of them end.
std::vector<int64_t> CommonEdges(const std::vector<int64_t>& a,
                                 const std::vector<int64_t>& b) {
  std::vector<int64_t> ends;
  for (const std::vector<int64_t>* sizes : {&a, &b}) {
    int64_t end = 0;
    for (const int64_t size : *sizes) ends.push_back(end += size);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  std::vector<int64_t> sizes;
  int64_t before = 0;
  for (const int64_t end : ends) {
    sizes.push_back(end - before);
    before = end;
  }
  return sizes;
}

}  // namespace

int64_t SizeOf(const DimPart& part) {
  int64_t size = 1;
  for (const DimFactor& factor : part) size *= factor.size;
  return size;
}

DimStructure DimStructure::Of(int64_t size, Wholeness wholeness) {
  return DimStructure({OnePart(size, wholeness)});
}

int64_t DimStructure::size() const {
  int64_t size = 0;
  for (const DimPart& part : parts_) size += SizeOf(part);
  return size;
}

bool DimStructure::IsPlain() const {
  return parts_.size() == 1 && IsOneFree(parts_[0]);
}

DimStructure DimStructure::And(const DimStructure& other) const {
  if (*this == other || other.IsPlain()) return *this;
  if (IsPlain()) return other;
  const Wholeness whole = std::max(WholenessOf(*this), WholenessOf(other));
  if (whole != Wholeness::kFree) return Of(size(), whole);
  const std::vector<int64_t> sizes =
      CommonEdges(SizesOf(parts_), SizesOf(other.parts_));
  const auto mine = Parted(sizes);
  const auto theirs = other.Parted(sizes);
  const DimStructure conflict = Of(size(), Wholeness::kWhole);
  if (!mine.has_value() || !theirs.has_value()) return conflict;
  std::vector<DimPart> both;
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::optional<DimPart> part =
        Refined((*mine)[i].parts_[0], (*theirs)[i].parts_[0]);
    if (!part.has_value()) return conflict;
    both.push_back(*std::move(part));
  }
  return DimStructure(std::move(both));
}

std::optional<std::vector<DimStructure>> DimStructure::Factored(
    absl::Span<const int64_t> sizes) const {
  std::vector<DimStructure> factors;
  if (sizes.size() == 1) return std::vector<DimStructure>{*this};
  if (parts_.size() == 1) {
    DimPart rest = parts_[0];
    for (const int64_t size : sizes) {
      std::optional<DimPart> factor = TakeFront(size, &rest);
      if (!factor.has_value()) return std::nullopt;
      factors.push_back(DimStructure({*std::move(factor)}));
    }
    return factors;
  }
  // Several parts: the first factor has them, each with all of the others.
  int64_t behind = 1;
  for (const int64_t size : sizes.subspan(1)) behind *= size;
  std::vector<DimPart> fronts;
  for (const DimPart& part : parts_) {
    if (behind == 0 || SizeOf(part) % behind != 0) return std::nullopt;
    DimPart rest = part;
    std::optional<DimPart> front = TakeFront(SizeOf(part) / behind, &rest);
    if (!front.has_value()) return std::nullopt;
    fronts.push_back(*std::move(front));
    const auto others = DimStructure({rest}).Factored(sizes.subspan(1));
    if (!others.has_value()) return std::nullopt;
    if (factors.empty()) {
      factors = *others;
      continue;
    }
    for (size_t i = 0; i < others->size(); ++i) {
      factors[i] = factors[i].And((*others)[i]);
    }
  }
  factors.insert(factors.begin(), DimStructure(std::move(fronts)));
  return factors;
}

DimStructure DimStructure::Product(absl::Span<const DimStructure> factors) {
  DimStructure product({DimPart{}});
  for (const DimStructure& factor : factors) {
    if (factor.parts_.size() > 1) {
      // Behind other factors its parts are many stretches: kept whole.
      if (!product.parts_[0].empty() || product.parts_.size() > 1) {
        const DimPart whole = OnePart(factor.size(), Wholeness::kWhole);
        for (DimPart& part : product.parts_) {
          part.insert(part.end(), whole.begin(), whole.end());
        }
        continue;
      }
      product = factor;
      continue;
    }
    for (DimPart& part : product.parts_) {
      part.insert(part.end(), factor.parts_[0].begin(), factor.parts_[0].end());
    }
  }
  return product;
}

std::optional<std::vector<DimStructure>> DimStructure::Parted(
    absl::Span<const int64_t> sizes) const {
  std::vector<DimStructure> result;
  auto next = parts_.begin();
  int64_t left = next == parts_.end() ? 0 : SizeOf(*next);
  for (int64_t size : sizes) {
    std::vector<DimPart> own;
    while (size > 0) {
      if (next == parts_.end()) return std::nullopt;
      const int64_t taken = std::min(size, left);
      const bool all = taken == SizeOf(*next);
      if (!all && !IsOneFree(*next)) return std::nullopt;
      own.push_back(all ? *next : OnePart(taken, Wholeness::kFree));
      size -= taken;
      left -= taken;
      if (left == 0 && ++next != parts_.end()) left = SizeOf(*next);
    }
    result.push_back(own.empty() ? Of(0) : DimStructure(std::move(own)));
  }
  return result;
}

DimStructure DimStructure::Sum(absl::Span<const DimStructure> parts) {
  std::vector<DimPart> all;
  for (const DimStructure& part : parts) {
    if (part.size() == 0) continue;
    all.insert(all.end(), part.parts_.begin(), part.parts_.end());
  }
  return DimStructure(std::move(all));
}

namespace {

// More than any module packs into one tensor.
constexpr int64_t kMostBlocks = 64;

// How one part is cut, and how often over.
std::optional<std::vector<Block>> BlocksOfPart(const DimPart& part,
                                               int64_t ranks, bool shared) {
  size_t at = 0;
  int64_t times = 1;
  while (at < part.size() && part[at].wholeness != Wholeness::kFree) {
    times *= part[at++].size;
  }
  if (at == part.size()) {
    // One head, perhaps of several projections.
    int64_t unit = 1;
    while (at > 0 && part[at - 1].wholeness == Wholeness::kHead) {
      unit *= part[--at].size;
    }
    times /= unit;
    if (unit == 1 || times > kMostBlocks) return std::nullopt;
    return std::vector<Block>(
        times, {unit, unit, shared ? static_cast<int>(ranks) : 1});
  }
  int64_t count = part[at].size;
  int64_t unit = SizeOf(part) / times / count;
  const bool more =
      at + 1 < part.size() && part[at + 1].wholeness == Wholeness::kFree;
  Block block{count * unit, unit};
  if (count < ranks && ranks % count == 0 && unit > 1) {
    const int64_t each = ranks / count;
    if (!more) {
      if (shared) block.replicas = static_cast<int>(each);
    } else if (part[at + 1].size % each == 0) {
      block.unit = unit / each;  // queries of one key head, shared out
    }
  }
  if (times > kMostBlocks) return std::nullopt;
  return std::vector<Block>(times, block);
}

}  // namespace

std::optional<Blocks> DimStructure::BlocksOver(int ranks, FewHeads few) const {
  std::vector<Block> blocks;
  for (const DimPart& part : parts_) {
    const auto own = BlocksOfPart(part, ranks, few == FewHeads::kShared);
    if (!own.has_value()) return std::nullopt;
    blocks.insert(blocks.end(), own->begin(), own->end());
  }
  return CanonicalBlocks(std::move(blocks), ranks);
}

}  // namespace shardplane
