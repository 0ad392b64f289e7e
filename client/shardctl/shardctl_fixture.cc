#include "client/shardctl/shardctl_fixture.h"

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/shardctl/shardctl.h"

namespace shardplane {

ShardctlTest::ShardctlTest() {
  variables_["SHARDPLANE_ADDRESS"] = fake_.address();
  variables_["HOME"] = ::testing::TempDir();
}

ShardctlResult ShardctlTest::RunIn(Environment environment,
                                   std::vector<std::string> words,
                                   const std::string& in) {
  std::ostringstream out;
  std::ostringstream err;
  std::istringstream input(in);
  environment.out = &out;
  environment.err = &err;
  environment.in = &input;
  environment.getenv = [this](const char* name) {
    const auto it = variables_.find(name);
    return it == variables_.end() ? std::string() : it->second;
  };
  environment.now = &absl::Now;
  environment.sleep = [](absl::Duration) {};
  const ExitCode code = RunShardctl(words, environment);
  return {code, out.str(), err.str()};
}

ShardctlResult ShardctlTest::Run(std::vector<std::string> words,
                                 const std::string& in) {
  return RunIn({}, std::move(words), in);
}

ShardctlResult ShardctlTest::RunOnTerminal(std::vector<std::string> words) {
  return RunIn({.out_is_terminal = true, .err_is_terminal = true, .width = 120},
               std::move(words), "");
}

std::string ShardctlTest::File(const std::string& name,
                               const std::string& text) {
  const std::string path = absl::StrCat(
      ::testing::TempDir(), "/",
      ::testing::UnitTest::GetInstance()->current_test_info()->name(), "-",
      name);
  std::ofstream(path, std::ios::trunc) << text;
  return path;
}

google::protobuf::Timestamp TimestampAgo(absl::Duration age) {
  google::protobuf::Timestamp time;
  time.set_seconds(absl::ToUnixSeconds(absl::Now() - age));
  return time;
}

v1::WorkerNode WorkerOf(const std::string& id, v1::WorkerNode::State state) {
  v1::WorkerNode worker;
  worker.set_name(absl::StrCat("workers/", id));
  worker.set_state(state);
  worker.set_device("cpu");
  worker.set_address("127.0.0.1:1");
  *worker.mutable_state_time() = TimestampAgo(absl::Minutes(210.5));
  return worker;
}

v1::Deployment DeploymentOf(const std::string& id) {
  v1::Deployment deployment;
  deployment.set_name(absl::StrCat("deployments/", id));
  deployment.set_state(v1::Deployment::STATE_READY);
  v1::MeshDim* dim = deployment.mutable_mesh()->add_dims();
  dim->set_name("tp");
  dim->set_size(2);
  deployment.add_workers("workers/a");
  deployment.add_workers("workers/b");
  *deployment.mutable_create_time() = TimestampAgo(absl::Hours(50.5));
  *deployment.mutable_update_time() = TimestampAgo(absl::Hours(1.001));
  return deployment;
}

v1::Operation OperationOf(v1::Operation::State state, double percent) {
  v1::Operation operation;
  operation.set_name("operations/o1");
  operation.set_kind(v1::Operation::KIND_MATERIALIZE);
  operation.set_resource("deployments/mlp");
  operation.set_state(state);
  operation.set_phase("placing parameters");
  operation.set_percent(percent);
  operation.set_bytes_total(2048);
  operation.set_bytes_done(static_cast<int64_t>(2048 * percent / 100));
  return operation;
}

}  // namespace shardplane
