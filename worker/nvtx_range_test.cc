#include "worker/nvtx_range.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "worker/nvtx_recorder_for_test.h"

namespace shardplane {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class NvtxTest : public testing::Test {
 protected:
  // Runs items named so, up to `fails`, which throws.
  void Run(NvtxDomain* domain, const std::vector<std::string>& names,
           size_t fails = -1) {
    const NvtxNames ready(domain, names);
    NvtxRuns shown(ready);
    for (size_t i = 0; i < names.size(); ++i) {
      shown.At(i);
      if (i == fails) throw std::runtime_error("an operator");
    }
  }

  NvtxRecorder recorder_;
  NvtxDomain domain_;
};

TEST_F(NvtxTest, RangesLieInTheDomain) {
  {
    const NvtxRange step(&domain_, "step", 17);
    const NvtxRange update(&domain_, "update");
  }
  EXPECT_THAT(recorder_.Take(),
              ElementsAre("shardplane{step 17", "shardplane{update",
                          "shardplane}", "shardplane}"));
}

TEST_F(NvtxTest, WithoutADomainThereIsNothing) {
  {
    const NvtxRange step(nullptr, "step", 17);
    const NvtxRange update(nullptr, "update");
    const NvtxRange item(NvtxNames(nullptr, {"net1"}), 0);
    const NvtxRange none(NvtxNames(), 3);
    Run(nullptr, {"net1", "net2"});
  }
  EXPECT_THAT(recorder_.Take(), IsEmpty());
}

TEST_F(NvtxTest, NeighboursOfOneNameShareARange) {
  Run(&domain_, {"net1", "net1", "net2", "", "", "net2", "net1"});
  EXPECT_THAT(recorder_.TakeRanges(),
              ElementsAre("net1", "net2", "net2", "net1"));
}

TEST_F(NvtxTest, NeighboursOfOneNameAreToldApartWhereEachHasItsOwn) {
  const NvtxNames names(&domain_, {"net1", "net1", ""});
  for (size_t i = 0; i < 3; ++i) const NvtxRange range(names, i);
  EXPECT_THAT(recorder_.TakeRanges(), ElementsAre("net1", "net1"));
}

TEST_F(NvtxTest, RangesEndWhereAnItemThrows) {
  for (const size_t item : {0, 1, 2}) {
    EXPECT_THROW(Run(&domain_, {"net1", "", "net2"}, item), std::runtime_error);
  }
  EXPECT_THAT(recorder_.TakeRanges(),
              ElementsAre("net1", "net1", "net1", "net2"));
}

TEST_F(NvtxTest, ANameIsToldOnce) {
  const NvtxNames first(&domain_, {"net1", "net2", "net1", ""});
  const NvtxNames second(&domain_, {"net2"});
  EXPECT_THAT(recorder_.Take(),
              ElementsAre("shardplane knows net1", "shardplane knows net2"));
}

}  // namespace
}  // namespace shardplane
