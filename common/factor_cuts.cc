#include "common/factor_cuts.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/tensor_spec.h"

namespace shardplane {
namespace {

// What the first of them has, which says all: later ones have as much, as long
// as there is something left.
int64_t ChunkLength(const Block& block, int ranks) {
  return Chunk(block.size / block.unit, ranks / block.replicas, 0).size *
         block.unit;
}

// `size` elements in chunks of `chunk`, with the one unit that says so for all:
// equal cuts are equal blocks.
Block InChunksOf(int64_t chunk, int64_t size, int ranks) {
  if (chunk == Chunk(size, ranks, 0).size) return {size};
  return {size, std::gcd(chunk, size)};
}

std::vector<Block> ListOf(const Blocks& blocks, int64_t size) {
  if (blocks.empty()) return {{.size = size}};
  return blocks.list();
}

// One block of a dim as one of a factor that has `behind` elements each.
std::optional<Block> Divided(Block block, int64_t behind, int ranks) {
  const int64_t chunk = ChunkLength(block, ranks);
  if (block.size % behind != 0) return std::nullopt;
  if (block.replicas == 1) {
    return InChunksOf(chunk / behind, block.size / behind, ranks);
  }
  block.size /= behind;
  block.unit /= behind;
  return block;
}

}  // namespace

Blocks CanonicalBlocks(std::vector<Block> list, int ranks) {
  std::erase_if(list, [](const Block& block) { return block.size == 0; });
  for (Block& block : list) {
    if (block.replicas == 1 && block.unit > 1) {
      block = InChunksOf(ChunkLength(block, ranks), block.size, ranks);
    }
  }
  const bool plain =
      list.empty() || ranks == 1 ||
      (list.size() == 1 && list[0].unit == 1 && list[0].replicas == 1);
  return plain ? Blocks{} : Blocks::Of(std::move(list));
}

FactorPlace PlaceOf(const std::vector<Factor>& factors, const DimFactors& dims,
                    int factor) {
  FactorPlace place;
  for (int d = 0; d < static_cast<int>(dims.size()); ++d) {
    const auto at = std::find(dims[d].begin(), dims[d].end(), factor);
    if (at == dims[d].end()) continue;
    if (place.dim >= 0) place.twice = true;
    place = {.dim = d,
             .index = static_cast<int>(at - dims[d].begin()),
             .twice = place.twice};
    for (auto f = dims[d].begin(); f != dims[d].end(); ++f) {
      if (f < at) place.before *= factors[*f].size;
      if (f > at) place.behind *= factors[*f].size;
    }
  }
  return place;
}

Blocks ToDim(const Blocks& factor, int64_t size, const FactorPlace& place,
             int ranks) {
  std::vector<Block> once = ListOf(factor, size);
  for (Block& block : once) {
    block.size *= place.behind;
    block.unit *= place.behind;
  }
  std::vector<Block> list;
  for (int64_t i = 0; i < place.before; ++i) {
    list.insert(list.end(), once.begin(), once.end());
  }
  return CanonicalBlocks(std::move(list), ranks);
}

std::optional<Blocks> ToFactor(const Blocks& dim, int64_t size,
                               const FactorPlace& place, int ranks) {
  const std::vector<Block> list =
      ListOf(dim, place.before * size * place.behind);
  const auto count = static_cast<int64_t>(list.size());
  if (place.before == 0 || place.behind == 0 || count % place.before != 0) {
    return std::nullopt;
  }
  std::vector<Block> once;
  int64_t sum = 0;
  for (int64_t i = 0; i < count / place.before; ++i) {
    const std::optional<Block> block = Divided(list[i], place.behind, ranks);
    if (!block.has_value()) return std::nullopt;
    sum += block->size;
    once.push_back(*block);
  }
  if (sum != size) return std::nullopt;
  const Blocks blocks = CanonicalBlocks(std::move(once), ranks);
  // A cut within the factor, or blocks that differ where it is repeated.
  if (ToDim(blocks, size, place, ranks) != dim) return std::nullopt;
  return blocks;
}

std::optional<std::vector<Blocks>> ToParts(const Blocks& factor, int64_t size,
                                           absl::Span<const int64_t> parts,
                                           int ranks) {
  const std::vector<Block> list = ListOf(factor, size);
  std::vector<Blocks> result;
  auto next = list.begin();
  for (const int64_t part : parts) {
    std::vector<Block> own;
    int64_t sum = 0;
    while (next != list.end() && sum < part) {
      own.push_back(*next);
      sum += (next++)->size;
    }
    if (sum != part) return std::nullopt;
    result.push_back(CanonicalBlocks(std::move(own), ranks));
  }
  return result;
}

}  // namespace shardplane
