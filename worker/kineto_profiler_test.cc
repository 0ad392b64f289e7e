#include "worker/kineto_profiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "ATen/core/Tensor.h"
#include "ATen/ops/ones.h"
#include "tests/matchers.h"
#include "worker/device_for_test.h"

namespace shardplane {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(KinetoProfilerTest, RecordsWhatRunsBetween) {
  const auto profiler = MakeKinetoProfiler(DeviceForTest(0));
  const at::Tensor x =
      at::ones({8, 8}, at::TensorOptions().device(DeviceForTest(0)));
  const at::Tensor before = x.cos();
  ASSERT_THAT(profiler->Begin(), IsOk());
  const at::Tensor within = x.matmul(x);
  const auto trace = profiler->End();
  ASSERT_THAT(trace, IsOk());
  EXPECT_THAT(*trace,
              AllOf(HasSubstr("\"traceEvents\""), HasSubstr("\"aten::mm\""),
                    Not(HasSubstr("\"aten::cos\""))));
  // Again, without what was.
  ASSERT_THAT(profiler->Begin(), IsOk());
  const at::Tensor again = x.sin();
  EXPECT_THAT(*profiler->End(), AllOf(HasSubstr("\"aten::sin\""),
                                      Not(HasSubstr("\"aten::mm\""))));
}

}  // namespace
}  // namespace shardplane
