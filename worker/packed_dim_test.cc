#include "worker/packed_dim.h"

#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/equal.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/ones_like.h"
#include "ATen/ops/zeros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

using ::testing::ElementsAre;

// [2, extent] of distinct numbers; dim 1 is the one that is cut.
at::Tensor Numbers(int64_t extent) {
  return at::arange(2 * extent, at::kDouble).reshape({2, extent});
}

at::Tensor PartOfRank(const PackedDim& dim, const at::Tensor& whole, int rank) {
  return NarrowTo(whole, 1, dim.Part(rank)).contiguous();
}

struct Case {
  const char* name;
  Blocks blocks;
  int64_t extent;
  int ranks;
};

class PackedDims : public testing::TestWithParam<Case> {};

TEST_P(PackedDims, AreWholeAgainFromChunksOfAllRanks) {
  const Case& c = GetParam();
  const PackedDim dim(1, c.extent, c.blocks, c.ranks);
  const at::Tensor whole = Numbers(c.extent);
  const at::Tensor by_rank = dim.ByRank(whole);

  EXPECT_EQ(by_rank.size(1), c.ranks * dim.chunk());
  EXPECT_TRUE(at::equal(dim.Whole(by_rank), whole));
  for (int rank = 0; rank < c.ranks; ++rank) {
    const at::Tensor chunk = by_rank.narrow(1, rank * dim.chunk(), dim.chunk());
    EXPECT_TRUE(at::equal(dim.Own(chunk, rank), PartOfRank(dim, whole, rank)));
  }
}

// The sum over the ranks of what each puts in its slots, taken out again, is
// for each shared element the sum over those that share it.
TEST_P(PackedDims, SlotsAddUpWhatGroupsShare) {
  const Case& c = GetParam();
  if (!c.blocks.has_replicas()) return;
  const PackedDim dim(1, c.extent, c.blocks, c.ranks);
  const at::Tensor whole = Numbers(c.extent);
  at::Tensor slots;
  for (int rank = 0; rank < c.ranks; ++rank) {
    const at::Tensor own = dim.ToSlots(PartOfRank(dim, whole, rank), rank);
    slots = slots.defined() ? slots + own : own;
  }
  for (int rank = 0; rank < c.ranks; ++rank) {
    const at::Tensor part = PartOfRank(dim, whole, rank);
    at::Tensor expected;
    int64_t at = 0;
    for (const Block& block : c.blocks.list()) {
      const int64_t size =
          SizeOf(PartOf(block.size, Blocks::Of({block}), c.ranks, rank));
      const at::Tensor own = part.narrow(1, at, size) * block.replicas;
      expected = expected.defined() ? at::cat({expected, own}, 1) : own;
      at += size;
    }
    EXPECT_TRUE(at::equal(dim.FromSlots(part, slots, rank), expected));
  }
}

TEST_P(PackedDims, OnceEachCoversEveryElementOnce) {
  const Case& c = GetParam();
  const PackedDim dim(1, c.extent, c.blocks, c.ranks);
  at::Tensor times = at::zeros({2, c.extent}, at::kDouble);
  for (int rank = 0; rank < c.ranks; ++rank) {
    const at::Tensor once =
        dim.OnceEach(at::ones({2, SizeOf(dim.Part(rank))}, at::kDouble), rank);
    int64_t at = 0;
    for (const Extent& stretch : dim.Part(rank)) {
      times.narrow(1, stretch.offset, stretch.size) +=
          once.narrow(1, at, stretch.size);
      at += stretch.size;
    }
  }
  EXPECT_TRUE(at::equal(times, at::ones_like(times)));
}

INSTANTIATE_TEST_SUITE_P(
    All, PackedDims,
    testing::Values(Case{"plain", {}, 10, 4},
                    Case{"blocks", Blocks::Of({{8}, {4}}), 12, 4},
                    Case{"uneven", Blocks::Of({{7}, {3}}), 10, 4},
                    Case{"units", Blocks::Of({{12, 4}, {12, 4}}), 24, 4},
                    Case{"shared", Blocks::Of({{16}, {8, 4, 2}, {8, 4, 2}}), 32,
                         4},
                    Case{"shared_by_all", Blocks::Of({{8}, {3, 3, 4}}), 11, 4}),
    [](const auto& info) { return info.param.name; });

TEST(LocateTest, FindsStretchesInOthers) {
  const Stretches outer = {{4, 8}, {20, 4}};

  EXPECT_THAT(Locate(outer, {{6, 2}, {21, 3}}),
              ElementsAre(Extent{2, 2}, Extent{9, 3}));
  EXPECT_THAT(Locate(outer, {}), testing::IsEmpty());
  EXPECT_THAT(Locate(outer, outer), ElementsAre(Extent{0, 8}, Extent{8, 4}));
}

}  // namespace
}  // namespace shardplane
