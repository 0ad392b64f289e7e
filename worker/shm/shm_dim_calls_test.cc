#include "worker/shm/shm_dim_calls.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/zeros.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "common/tensor_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/shm/shm_backend.h"
#include "worker/shm/shm_group_for_test.h"

namespace shardplane {
namespace {

using ::testing::HasSubstr;
using Tensors = std::vector<at::Tensor>;

// So small that chunks of data begin and end in the middle of runs.
constexpr int64_t kSlotBytes = 1024;

void OnGroup(int ranks, const std::function<void(int, ShmBackend&)>& body) {
  auto memory = ShmGroupForTest(ranks, {.slot_bytes = kSlotBytes});
  OnEachRank(ranks, [&](int rank) {
    const auto backend = c10::make_intrusive<ShmBackend>(
        rank, std::move(memory[rank]), std::chrono::minutes(1));
    body(rank, *backend);
  });
}

at::Tensor Numbers(const std::vector<int64_t>& shape, int salt,
                   at::ScalarType type = at::kFloat) {
  return at::arange(c10::multiply_integers(shape), at::kDouble)
      .add(salt)
      .sin()
      .mul(1000)
      .to(type)
      .view(shape);
}

at::Tensor ChunkOf(const at::Tensor& whole, int dim, int ranks, int rank) {
  const Extent chunk = Chunk(whole.size(dim), ranks, rank);
  return whole.narrow(dim, chunk.offset, chunk.size).contiguous();
}

struct Named {
  std::string name;
  std::vector<int64_t> sizes;
};
class ShmDimCallsTest
    : public ::testing::TestWithParam<std::tuple<int, Named>> {
 protected:
  int ranks() const { return std::get<0>(GetParam()); }
  const std::vector<int64_t>& sizes() const {
    return std::get<1>(GetParam()).sizes;
  }
  int dims() const { return static_cast<int>(sizes().size()); }
};

TEST_P(ShmDimCallsTest, AllGather) {
  OnGroup(ranks(), [&](int rank, ShmBackend& backend) {
    for (const at::ScalarType type : {at::kFloat, at::kByte}) {
      const at::Tensor whole = Numbers(sizes(), 0, type);
      for (int dim = 0; dim < dims(); ++dim) {
        const at::Tensor output = at::empty_like(whole);
        backend.Run(AllGatherAlongCall(
            backend.place(), output, ChunkOf(whole, dim, ranks(), rank), dim));
        EXPECT_TRUE(output.equal(whole)) << "dim " << dim;
      }
    }
  });
}

TEST_P(ShmDimCallsTest, ReduceScatterInRankOrder) {
  at::Tensor sum = Numbers(sizes(), 0);
  for (int rank = 1; rank < ranks(); ++rank) sum = sum + Numbers(sizes(), rank);
  OnGroup(ranks(), [&](int rank, ShmBackend& backend) {
    const at::Tensor input = Numbers(sizes(), rank);
    for (int dim = 0; dim < dims(); ++dim) {
      const at::Tensor expected = ChunkOf(sum, dim, ranks(), rank);
      const at::Tensor output = at::empty_like(expected);
      backend.Run(ReduceScatterAlongCall(backend.place(), output, input, dim,
                                         c10d::ReduceOp::SUM));
      EXPECT_TRUE(output.equal(expected)) << "dim " << dim;
      EXPECT_TRUE(input.equal(Numbers(sizes(), rank)));
    }
  });
}

TEST_P(ShmDimCallsTest, AllToAll) {
  const at::Tensor whole = Numbers(sizes(), 0, at::kDouble);
  OnGroup(ranks(), [&](int rank, ShmBackend& backend) {
    for (int from = 0; from < dims(); ++from) {
      for (int to = 0; to < dims(); ++to) {
        if (from == to) continue;
        const at::Tensor expected = ChunkOf(whole, to, ranks(), rank);
        const at::Tensor output = at::empty_like(expected);
        backend.Run(AllToAllAlongCall(backend.place(), output,
                                      ChunkOf(whole, from, ranks(), rank), from,
                                      to));
        EXPECT_TRUE(output.equal(expected)) << from << " to " << to;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    All, ShmDimCallsTest,
    ::testing::Combine(::testing::Range(1, 5),
                       ::testing::Values(Named{"Small", {5, 3, 7}},
                                         Named{"LongRuns", {3, 10, 70}},
                                         Named{"OneRow", {1, 2, 1, 333}},
                                         Named{"Even", {8, 4, 64}},
                                         Named{"Vector", {1001}},
                                         Named{"FewerThanRanks", {2, 3, 2}},
                                         Named{"NothingOutside", {0, 4, 3}},
                                         Named{"NothingInside", {3, 4, 0}})),
    [](const ::testing::TestParamInfo<std::tuple<int, Named>>& info) {
      return absl::StrCat(std::get<1>(info.param).name, "On",
                          std::get<0>(info.param));
    });

// On the first of two ranks.
std::string Refusal(const std::function<ShmCall(const ShmPlace&)>& make) {
  try {
    make({.rank = 0, .size = 2});
  } catch (const c10::ValueError& error) {
    return error.what_without_backtrace();
  }
  return "nothing";
}

TEST(ShmDimCallsRefuseTest, AnotherChunkThanTheRanks) {
  const at::Tensor whole = at::zeros({2, 5});
  EXPECT_THAT(Refusal([&](const ShmPlace& place) {
                return AllGatherAlongCall(place, whole, at::zeros({2, 2}), 1);
              }),
              HasSubstr("expected a chunk of [2, 3]; got: [2, 2]"));
  EXPECT_THAT(Refusal([&](const ShmPlace& place) {
                return ReduceScatterAlongCall(place, at::zeros({2, 2}), whole,
                                              1, c10d::ReduceOp::SUM);
              }),
              HasSubstr("expected a chunk of [2, 3]; got: [2, 2]"));
  EXPECT_THAT(Refusal([&](const ShmPlace& place) {
                return AllToAllAlongCall(place, at::zeros({2, 3}),
                                         at::zeros({2, 5}), 0, 1);
              }),
              HasSubstr("; got: [2, 5]"));
  EXPECT_THAT(Refusal([&](const ShmPlace& place) {
                return AllToAllAlongCall(place, at::zeros({2, 2}),
                                         at::zeros({1, 5}), 0, 1);
              }),
              HasSubstr("; got: [2, 2]"));
}

TEST(ShmDimCallsRefuseTest, DimsThatThereAreNot) {
  EXPECT_THAT(Refusal([&](const ShmPlace& place) {
                return AllGatherAlongCall(place, at::zeros({2}), at::zeros({1}),
                                          1);
              }),
              HasSubstr("expected a tensor with dim 1; got: [2]"));
}

TEST(ShmDimCallsRefuseTest, OtherTypesAndLayouts) {
  EXPECT_THAT(Refusal([&](const ShmPlace& place) {
                return AllGatherAlongCall(place, at::zeros({2}),
                                          at::zeros({1}, at::kLong), 0);
              }),
              HasSubstr("expected tensors of one element type"));
  EXPECT_THAT(Refusal([&](const ShmPlace& place) {
                return ReduceScatterAlongCall(place, at::zeros({1, 3}),
                                              at::zeros({3, 2}).t(), 0,
                                              c10d::ReduceOp::SUM);
              }),
              HasSubstr("expected a dense, contiguous tensor"));
}

}  // namespace
}  // namespace shardplane
