#include "common/dropout_mask.h"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/host_tensor.h"
#include "common/spec_enumeration.h"
#include "common/tensor_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr DropoutStream kStream = {.seed = 1, .step = 2, .node = 3};

std::vector<uint8_t> MaskOf(const DropoutStream& stream, double p,
                            const Shape& sizes,
                            const std::vector<Extent>& part) {
  int64_t elements = 1;
  for (const Extent& extent : part) elements *= extent.size;
  std::vector<uint8_t> keep(elements);
  EXPECT_THAT(DropoutMask(stream, p, sizes, part, absl::MakeSpan(keep)),
              IsOk());
  return keep;
}

std::vector<uint8_t> Whole(const DropoutStream& stream, double p,
                           const Shape& sizes) {
  std::vector<Extent> part;
  for (const int64_t size : sizes) part.push_back({0, size});
  return MaskOf(stream, p, sizes, part);
}

HostTensor MaskTensor(const Shape& sizes) {
  const std::vector<uint8_t> mask = Whole(kStream, 0.4, sizes);
  return {{DType::kBool, sizes}, std::string(mask.begin(), mask.end())};
}

std::string Bytes(const std::vector<uint8_t>& mask) {
  return std::string(mask.begin(), mask.end());
}

TEST(DropoutMask, IsTheSameOnEveryMesh) {
  const HostTensor global = MaskTensor({5, 7, 3});
  for (const DeviceMesh& mesh : SmallMeshes()) {
    for (const DTensorSpec& spec : AllSpecs(mesh, 3)) {
      for (int rank = 0; rank < mesh.size(); ++rank) {
        const std::vector<Stretches> part = LocalStretches(
            global.type.shape, spec, mesh, mesh.Coordinate(rank));
        std::vector<Extent> extents;  // one a dim, none of which is packed
        for (const Stretches& dim : part) {
          extents.push_back(dim.empty() ? Extent{} : dim[0]);
        }
        ASSERT_EQ(Bytes(MaskOf(kStream, 0.4, global.type.shape, extents)),
                  SliceHost(global, part).bytes)
            << mesh.ToString() << " " << ToString(spec) << " rank " << rank;
      }
    }
  }
}

// Long runs, whose ends lie anywhere in a block.
TEST(DropoutMask, RowsOfAnyLengthAreParts) {
  const HostTensor global = MaskTensor({3, 301});
  for (int64_t begin = 0; begin < 9; ++begin) {
    for (int64_t size = 280; size <= 290; ++size) {
      const std::vector<Extent> part = {{1, 2}, {begin, size}};
      ASSERT_EQ(Bytes(MaskOf(kStream, 0.4, global.type.shape, part)),
                SliceHost(global, {{part[0]}, {part[1]}}).bytes)
          << begin << " " << size;
    }
  }
}

TEST(DropoutMask, DoesNotDependOnTheShape) {
  EXPECT_EQ(Whole(kStream, 0.5, {6, 7}), Whole(kStream, 0.5, {42}));
}

TEST(DropoutMask, DependsOnSeedStepAndNode) {
  const auto mask = [](const DropoutStream& stream) {
    return Whole(stream, 0.5, {64});
  };
  const std::vector<uint8_t> first = mask(kStream);
  const uint64_t high = uint64_t{1} << 32;

  EXPECT_EQ(mask(kStream), first);
  EXPECT_NE(mask({2, 2, 3}), first);
  EXPECT_NE(mask({1, 3, 3}), first);
  EXPECT_NE(mask({1, 2, 4}), first);
  EXPECT_NE(mask({1 + high, 2, 3}), first);
  EXPECT_NE(mask({1, 2 + high, 3}), first);
  EXPECT_NE(mask({1, 2, static_cast<int64_t>(3 + high)}), first);
  EXPECT_NE(mask({1, 3, 2}), first);  // step and node are not interchangeable
}

// Of independent masks with p = 0.5, half the elements agree.
TEST(DropoutMask, StreamsAreIndependent) {
  const int64_t n = 100'000;
  const std::vector<uint8_t> a = Whole(kStream, 0.5, {n});
  for (const DropoutStream& other :
       {DropoutStream{1, 3, 3}, DropoutStream{1, 2, 4}}) {
    const std::vector<uint8_t> b = Whole(other, 0.5, {n});
    int64_t agree = 0;
    for (int64_t i = 0; i < n; ++i) agree += a[i] == b[i] ? 1 : 0;
    EXPECT_NEAR(static_cast<double>(agree), n * 0.5, 5 * std::sqrt(n * 0.25));
  }
}

// Five standard deviations of a binomial count, for each word of a block.
TEST(DropoutMask, KeepsTheRightShare) {
  for (const double p : {0.01, 0.1, 0.5, 0.9}) {
    const int64_t n = 250'000;
    const std::vector<uint8_t> mask = Whole(kStream, p, {n, 4});
    for (int word = 0; word < 4; ++word) {
      int64_t kept = 0;
      for (int64_t i = 0; i < n; ++i) kept += mask[4 * i + word];
      EXPECT_NEAR(static_cast<double>(kept), n * (1 - p),
                  5 * std::sqrt(n * p * (1 - p)))
          << p << " word " << word;
    }
  }
}

// What a smaller p drops, a larger one drops too.
TEST(DropoutMask, ComparesOneDrawWithP) {
  const std::vector<uint8_t> few = Whole(kStream, 0.7, {1000});
  const std::vector<uint8_t> many = Whole(kStream, 0.2, {1000});
  for (size_t i = 0; i < few.size(); ++i) EXPECT_LE(few[i], many[i]);
}

TEST(DropoutMask, NothingAndEverythingDropped) {
  EXPECT_THAT(Whole(kStream, 0, {1000}), Each(1));
  EXPECT_THAT(Whole(kStream, 1, {1000}), Each(0));
  EXPECT_THAT(Whole(kStream, 1 - 1e-12, {1000}), Each(0));
}

TEST(DropoutMask, ScalarsAndEmptyParts) {
  EXPECT_EQ(Whole(kStream, 0.5, {})[0], Whole(kStream, 0.5, {8})[0]);
  EXPECT_THAT(MaskOf(kStream, 0.5, {5}, {{5, 0}}), ElementsAre());
  EXPECT_THAT(MaskOf(kStream, 0.5, {0, 3}, {{0, 0}, {1, 2}}), ElementsAre());
}

// Beyond 2^34 elements a block's number needs a second word.
TEST(DropoutMask, OfAHugeTensor) {
  const int64_t rows = int64_t{1} << 32;
  const auto row = [&](int64_t i) {
    return MaskOf(kStream, 0.5, {rows, 64}, {{i, 1}, {0, 64}});
  };
  EXPECT_NE(row(0), row(rows / 4));
  EXPECT_NE(row(1), row(rows - 1));
}

// Pinned, so that a run can be repeated with a later release.
TEST(DropoutMask, StaysTheSameForGood) {
  EXPECT_THAT(Whole({.seed = 42, .step = 7, .node = 1}, 0.5, {12}),
              ElementsAre(0, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0));
}

TEST(DropoutMask, RefusesWhatDoesNotFit) {
  std::vector<uint8_t> keep(6);
  const auto mask = [&](double p, std::vector<Extent> part) {
    return DropoutMask(kStream, p, {4, 3}, part, absl::MakeSpan(keep));
  };
  const auto invalid = [](const std::string& got) {
    return StatusIs(absl::StatusCode::kInvalidArgument,
                    HasSubstr("; got: " + got));
  };

  EXPECT_THAT(mask(1.5, {{0, 2}, {0, 3}}), invalid("1.5"));
  EXPECT_THAT(mask(-0.1, {{0, 2}, {0, 3}}), invalid("-0.1"));
  EXPECT_THAT(mask(std::nan(""), {{0, 2}, {0, 3}}), invalid("nan"));
  EXPECT_THAT(mask(0.5, {{3, 2}, {0, 3}}),
              AllOf(invalid("[3+2, 0+3]"), HasReason("INVALID_DROPOUT")));
  EXPECT_THAT(mask(0.5, {{0, 1}, {0, 3}}), invalid("[0+1, 0+3]"));
  EXPECT_THAT(mask(0.5, {{-1, 2}, {0, 3}}), invalid("[-1+2, 0+3]"));
  EXPECT_THAT(mask(0.5, {{0, 6}}), invalid("[0+6]"));
}

}  // namespace
}  // namespace shardplane
