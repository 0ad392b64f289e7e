#include "worker/transport.h"

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

TEST(TransportTest, ChoicesAreRead) {
  EXPECT_THAT(ParseTransportChoice("auto"),
              IsOkAndHolds(TransportChoice::kAuto));
  EXPECT_THAT(ParseTransportChoice("shm"),
              IsOkAndHolds(TransportChoice::kSharedMemory));
  EXPECT_THAT(ParseTransportChoice("gloo"),
              IsOkAndHolds(TransportChoice::kGloo));
  EXPECT_THAT(ParseTransportChoice("nccl"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "collectives: expected auto, shm or gloo; got: nccl"));
}

TEST(TransportTest, Texts) {
  EXPECT_EQ(ToString(Transport::kNccl), "nccl");
  EXPECT_EQ(
      ToString(GroupTransport{
          .mesh_dim = "tp", .transport = Transport::kSharedMemory, .why = ""}),
      "mesh dim tp: shm");
  EXPECT_EQ(ToString(GroupTransport{.mesh_dim = "dp",
                                    .transport = Transport::kGloo,
                                    .why = "rank 1 is far away"}),
            "mesh dim dp: gloo, as rank 1 is far away");
}

}  // namespace
}  // namespace shardplane
