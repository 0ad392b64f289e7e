#include "proto/convert/data_parallel.h"

#include "common/errors.h"
#include "gtest/gtest.h"

namespace shardplane {
namespace {

TEST(DataParallelConvertTest, ComesBackAsItWas) {
  for (const DataParallelKind kind :
       {DataParallelKind::kReplicate, DataParallelKind::kFullyShard}) {
    const DataParallel item{"dp", kind, {{"net.weight", 1}, {"b", -1}}};
    const auto read = FromProto(ToProto(item), "data_parallel");
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, item);
  }
}

TEST(DataParallelConvertTest, AKindIsRequired) {
  google::protobuf::RepeatedPtrField<v1::DataParallel> messages;
  *messages.Add() = ToProto({"dp", DataParallelKind::kFullyShard});
  messages.Add()->set_mesh_dim("pp");
  const auto read = FromProto(messages, "deployment", "data_parallel");
  EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorInfo(read.status())->metadata.at("field"),
            "deployment.data_parallel[1].kind");
}

}  // namespace
}  // namespace shardplane
