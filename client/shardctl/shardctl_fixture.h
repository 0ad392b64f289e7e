// For tests: shardctl beside a coordinator of the test's.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_SHARDCTL_FIXTURE_H_
#define SHARDPLANE_CLIENT_SHARDCTL_SHARDCTL_FIXTURE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/fake_cluster.h"
#include "client/shardctl/command.h"
#include "gtest/gtest.h"

namespace shardplane {

struct ShardctlResult {
  ExitCode code;
  std::string out;
  std::string err;
};

// Sleeps return at once; the clock is the real one.
class ShardctlTest : public ::testing::Test {
 protected:
  ShardctlTest();

  // With the fake's address, unless the words name another one.
  ShardctlResult Run(std::vector<std::string> words,
                     const std::string& in = "");
  // The same on a terminal of 120 columns.
  ShardctlResult RunOnTerminal(std::vector<std::string> words);
  // A file of the test's own, with its path.
  std::string File(const std::string& name, const std::string& text);

  FakeCluster fake_;
  std::map<std::string, std::string> variables_;

 private:
  ShardctlResult RunIn(Environment environment, std::vector<std::string> words,
                       const std::string& in);
};

google::protobuf::Timestamp TimestampAgo(absl::Duration age);
v1::WorkerNode WorkerOf(const std::string& id, v1::WorkerNode::State state);
// READY, two ranks on workers/a and workers/b.
v1::Deployment DeploymentOf(const std::string& id);
v1::Operation OperationOf(v1::Operation::State state, double percent);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_SHARDCTL_FIXTURE_H_
