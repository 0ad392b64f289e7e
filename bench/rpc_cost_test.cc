// What the benchmark compares with: servers that answer, and pass on.
#include "bench/rpc_cost.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/echo_server.h"
#include "client/client.h"
#include "client/train_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/matchers.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::Each;
using ::testing::Gt;
using ::testing::SizeIs;

pb::StepRequest StepOf(uint64_t number) {
  pb::StepRequest step;
  step.set_deployment("deployments/d");
  step.set_step(number);
  step.mutable_train()->add_inputs()->set_inline_(std::string(320, '\1'));
  return step;
}

struct Shape {
  const char* name;
  int workers;
  RelayBy relay_by;
};
void PrintTo(const Shape& shape, std::ostream* os) { *os << shape.name; }

class EchoTest : public ::testing::TestWithParam<Shape> {
 protected:
  EchoTest() {
    std::vector<std::string> addresses;
    for (int i = 0; i < GetParam().workers; ++i) {
      workers_.push_back(*EchoServer::Start({}));
      addresses.push_back(workers_.back()->address());
    }
    server_ = *EchoServer::Start(
        {.workers = addresses, .relay_by = GetParam().relay_by});
  }
  std::vector<std::unique_ptr<EchoServer>> workers_;
  std::unique_ptr<EchoServer> server_;
};

TEST_P(EchoTest, AnswersAsACoordinatorDoes) {
  const auto client = Client::Connect(server_->address());
  ASSERT_THAT(client, IsOk());
  const auto result = (*client)->Step(StepOf(7));
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->name(), "deployments/d/steps/7");
  const auto stream = (*client)->Train();
  for (uint64_t n = 1; n <= 20; ++n) {
    ASSERT_THAT(stream->Write(StepOf(n)), IsOk());
  }
  EXPECT_THAT(stream->Finish(), IsOk());
  for (uint64_t n = 1; n <= 20; ++n) {
    EXPECT_EQ((*stream->Read())->number(), n);
  }
}

TEST_P(EchoTest, IsMeasured) {
  EchoSide side(server_->address(), StepOf(1));
  std::vector<double> calls;
  std::vector<double> messages;
  std::vector<double> streams;
  EXPECT_THAT(side.Calls(3, &calls), IsOk());
  EXPECT_THAT(side.Messages(4, &messages), IsOk());
  EXPECT_THAT(side.Stream(50, 8, &streams), IsOk());
  EXPECT_THAT(side.Stream(5, 8, &streams), IsOk());
  EXPECT_THAT(calls, SizeIs(3));
  EXPECT_THAT(messages, SizeIs(4));
  EXPECT_THAT(streams, SizeIs(2));
  EXPECT_THAT(streams, Each(Gt(0)));
}

TEST_P(EchoTest, EveryWorkerIsAsked) {
  if (workers_.empty()) {
    return;
  }
  workers_.pop_back();
  EchoSide side(server_->address(), StepOf(1));
  std::vector<double> times;
  EXPECT_THAT(side.Calls(1, &times),
              StatusIs(absl::StatusCode::kUnavailable, ::testing::_));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, EchoTest,
    ::testing::Values(Shape{"alone", 0, RelayBy::kCalls},
                      Shape{"passes on by calls", 3, RelayBy::kCalls},
                      Shape{"passes on by streams", 3, RelayBy::kStreams}),
    CaseName<Shape>);

}  // namespace
}  // namespace shardplane
