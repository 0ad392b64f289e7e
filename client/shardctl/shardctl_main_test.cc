// Commands, against a coordinator of the test's.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/shardctl/shardctl_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/grpc_status.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kFile[] = R"(deployment_id: mlp
deployment:
  mesh: {dims: [{name: tp, size: 2}]}
)";

class ShardctlCommandTest : public ShardctlTest {
 protected:
  ShardctlCommandTest() {
    FakeResources all;
    all.workers = {WorkerOf("a", pb::WorkerNode::STATE_READY),
                   WorkerOf("b", pb::WorkerNode::STATE_READY),
                   WorkerOf("c", pb::WorkerNode::STATE_READY)};
    all.workers[0].set_deployment("deployments/mlp");
    all.deployments = {DeploymentOf("mlp")};
    all.deployments[0].set_last_step(2);
    for (int i = 1; i <= 2; ++i) {
      pb::StepResult& step = all.steps.emplace_back();
      step.set_name(absl::StrCat("deployments/mlp/steps/", i));
      step.set_number(i);
      step.set_duration_seconds(0.01 * i);
    }
    pb::Event& event = all.events.emplace_back();
    event.set_name("events/1");
    event.set_severity(pb::Event::SEVERITY_WARNING);
    event.set_reason("WORKER_LOST");
    event.set_resource("workers/a");
    event.set_message("gone");
    *event.mutable_create_time() = TimestampAgo(absl::Hours(3.01));
    all.timelines.emplace_back().set_name("deployments/mlp/steps/2/timeline");
    fake_.SetResources(std::move(all));
  }
  // Answers of Watch: what there is, then what changes.
  static pb::WatchResponse EventOf(pb::WatchEvent::Type type,
                                   const pb::WorkerNode& worker) {
    pb::WatchResponse message;
    message.add_events()->set_type(type);
    *message.mutable_events(0)->mutable_worker() = worker;
    return message;
  }
  static pb::WatchResponse Bookmark() {
    pb::WatchResponse message;
    message.add_events()->set_type(pb::WatchEvent::TYPE_BOOKMARK);
    return message;
  }
};

TEST_F(ShardctlCommandTest, GetShowsTables) {
  const ShardctlResult result = Run({"get", "wk"});
  EXPECT_EQ(result.code, ExitCode::kDone) << result.err;
  EXPECT_EQ(result.out,
            "NAME   STATE   DEVICE   DEPLOYMENT   RANK   IN STATE\n"
            "a      READY   cpu      mlp             0      3h30m\n"
            "b      READY   cpu      -               -      3h30m\n"
            "c      READY   cpu      -               -      3h30m\n");
  EXPECT_EQ(Run({"get", "deploy", "mlp", "--no-headers"}).out,
            "mlp   READY   [tp=2]   2   0   2   2d2h\n");
}

TEST_F(ShardctlCommandTest, GetInOtherForms) {
  EXPECT_EQ(Run({"get", "workers", "-o", "name"}).out,
            "workers/a\nworkers/b\nworkers/c\n");
  const auto list =
      nlohmann::json::parse(Run({"get", "workers", "-o", "json"}).out);
  EXPECT_THAT(list["workers"], SizeIs(3));
  const auto one =
      nlohmann::json::parse(Run({"get", "workers/b", "-o", "json"}).out);
  EXPECT_EQ(one["name"], "workers/b");
  EXPECT_THAT(Run({"get", "deploy/mlp", "-o=yaml"}).out,
              HasSubstr("mesh:\n  dims:\n    - name: tp\n      size: 2\n"));
  EXPECT_THAT(Run({"get", "wk", "-o", "wide"}).out, HasSubstr("127.0.0.1:1"));
}

TEST_F(ShardctlCommandTest, GetOfSeveralKinds) {
  EXPECT_THAT(Run({"get", "wk,deploy"}).out,
              AllOf(HasSubstr("WORKERS\nNAME"), HasSubstr("DEPLOYMENTS\n")));
  EXPECT_THAT(Run({"get", "deploy/mlp", "workers/c"}).out,
              AllOf(HasSubstr("mlp"), HasSubstr("c      READY")));
  const auto all = nlohmann::json::parse(Run({"get", "all", "-o=json"}).out);
  EXPECT_THAT(all["workers"], SizeIs(3));
  EXPECT_THAT(all["deployments"], SizeIs(1));
}

TEST_F(ShardctlCommandTest, StepsOfADeploymentOrOfAll) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{
           {"get", "steps", "-o", "name"},
           {"get", "steps", "-o", "name", "--deployment", "mlp"}}) {
    EXPECT_EQ(Run(words).out,
              "deployments/mlp/steps/1\ndeployments/mlp/steps/2\n");
  }
  EXPECT_EQ(Run({"get", "st", "2", "-d", "mlp", "-o", "name"}).out,
            "deployments/mlp/steps/2\n");
  EXPECT_EQ(Run({"get", "steps/2"}).code, ExitCode::kUsage);
}

TEST_F(ShardctlCommandTest, WhatIsNotThereIsAnErrorWithAHint) {
  const ShardctlResult result = Run({"get", "deploy", "mpl"});
  EXPECT_EQ(result.code, ExitCode::kFailed);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, AllOf(HasSubstr("NOT_THERE (NOT_FOUND)"),
                                HasSubstr("hint: Did you mean \"mlp\"?")));
  EXPECT_EQ(Run({"get", "wokers"}).err.substr(0, 64),
            "error: there is no kind of resource \"wokers\". Did you mean "
            "\"work");
}

TEST_F(ShardctlCommandTest, NobodyThere) {
  const ShardctlResult result =
      Run({"get", "wk", "--address=127.0.0.1:1", "--timeout=100ms"});
  EXPECT_EQ(result.code, ExitCode::kUnreachable);
  EXPECT_THAT(result.err, HasSubstr("hint: is it running?"));
  const ShardctlResult diagnosed =
      Run({"diagnose", "--address=127.0.0.1:1", "--timeout=100ms"});
  EXPECT_EQ(diagnosed.code, ExitCode::kUnreachable);
  EXPECT_THAT(diagnosed.out, HasSubstr("ERROR"));
}

TEST_F(ShardctlCommandTest, WatchFollows) {
  pb::WorkerNode worker = WorkerOf("a", pb::WorkerNode::STATE_READY);
  pb::WorkerNode lost = WorkerOf("a", pb::WorkerNode::STATE_LOST);
  fake_.AddWatch(
      {.messages = {EventOf(pb::WatchEvent::TYPE_ADDED, worker), Bookmark(),
                    EventOf(pb::WatchEvent::TYPE_MODIFIED, lost),
                    EventOf(pb::WatchEvent::TYPE_DELETED, lost)},
       .stays = true});
  const ShardctlResult result = Run({"get", "wk", "-w", "--timeout=500ms"});
  EXPECT_EQ(result.code, ExitCode::kDone) << result.err;
  EXPECT_EQ(result.out,
            "NAME   STATE   DEVICE   DEPLOYMENT   RANK   IN STATE\n"
            "a      READY   cpu      -               -      3h30m\n"
            "a      LOST    cpu      -               -      3h30m\n"
            "a (deleted)   LOST    cpu      -               -      3h30m\n");
  EXPECT_EQ(fake_.watches()[0].collections(0), "workers");
  EXPECT_EQ(Run({"get", "steps", "-w"}).code, ExitCode::kUsage);
}

TEST_F(ShardctlCommandTest, DescribeHasEvents) {
  EXPECT_THAT(Run({"describe", "workers/a"}).out,
              AllOf(HasSubstr("State:         READY\n"), HasSubstr("Events\n"),
                    HasSubstr("WORKER_LOST")));
  fake_.LacksNewMethods();
  EXPECT_THAT(Run({"describe", "wk", "a"}).out,
              HasSubstr("Events: this coordinator keeps none"));
}

TEST_F(ShardctlCommandTest, EventsOfOneResource) {
  EXPECT_THAT(Run({"events", "--for", "wk/a"}).out, HasSubstr("gone"));
  const ShardctlResult none = Run({"events", "--for", "wk/b"});
  EXPECT_EQ(none.out, "");
  EXPECT_EQ(none.err, "There are none.\n");
}

TEST_F(ShardctlCommandTest, ApplyMakesWhatIsNotThere) {
  fake_.SetResources({});
  const std::string file = File("d.yaml", kFile);
  const ShardctlResult dry = Run({"apply", "-f", file, "--dry-run"});
  EXPECT_EQ(dry.code, ExitCode::kFailed) << dry.err;
  EXPECT_THAT(dry.out, HasSubstr("+mesh:\n"));
  EXPECT_THAT(fake_.created(), SizeIs(0));
  EXPECT_EQ(Run({"apply", "-f", file}).out, "deployments/mlp created\n");
  EXPECT_THAT(fake_.created(), SizeIs(1));
  EXPECT_EQ(Run({"apply", "-f", "-", "--name=x"}, kFile).out,
            "deployments/x created\n");
}

TEST_F(ShardctlCommandTest, ApplyComparesWithWhatIsThere) {
  pb::Deployment same = DeploymentOf("mlp");
  fake_.SetPlanned(same);
  EXPECT_EQ(Run({"apply", "-f", "-"}, kFile).out,
            "deployments/mlp unchanged\n");
  EXPECT_EQ(Run({"apply", "-f", "-", "--dry-run"}, kFile).code,
            ExitCode::kDone);
  same.mutable_mesh()->mutable_dims(0)->set_size(4);
  fake_.SetPlanned(same);
  const ShardctlResult other = Run({"apply", "-f", "-"}, kFile);
  EXPECT_EQ(other.code, ExitCode::kFailed);
  EXPECT_THAT(other.out, HasSubstr("-      size: 2\n+      size: 4\n"));
  EXPECT_THAT(other.err, HasSubstr("--replace"));
  EXPECT_THAT(fake_.created(), SizeIs(0));
  EXPECT_EQ(Run({"apply", "-f", "-", "--replace"}, kFile).code,
            ExitCode::kDone);
  EXPECT_THAT(fake_.created(), SizeIs(1));
}

TEST_F(ShardctlCommandTest, MaterializingShowsItsProgress) {
  fake_.SetResources({});
  fake_.SetWaits({OperationOf(pb::Operation::STATE_RUNNING, 25),
                  OperationOf(pb::Operation::STATE_SUCCEEDED, 100)});
  const std::string file = File("d.yaml", kFile);
  const ShardctlResult result =
      RunOnTerminal({"apply", "-f", file, "--materialize"});
  EXPECT_EQ(result.code, ExitCode::kDone) << result.err;
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("\rplacing parameters [#####...............]  "
                              "25%  512 B of 2.0 KiB"),
                    HasSubstr("100%")));
  EXPECT_THAT(result.out, HasSubstr("deployments/mlp materialized\n"));
  // Not on a terminal: no bar.
  fake_.SetResources({});
  EXPECT_EQ(Run({"apply", "-f", file, "--materialize"}).err, "");
}

TEST_F(ShardctlCommandTest, MaterializingMayFailOrLast) {
  fake_.SetResources({});
  pb::Operation failed = OperationOf(pb::Operation::STATE_FAILED, 25);
  failed.mutable_error()->set_code(9);
  failed.mutable_error()->set_message("no room");
  fake_.SetWaits({failed});
  const ShardctlResult refused =
      Run({"apply", "-f", "-", "--materialize"}, kFile);
  EXPECT_EQ(refused.code, ExitCode::kFailed);
  EXPECT_THAT(refused.err, HasSubstr("no room"));
  fake_.SetResources({});
  fake_.SetWaits({OperationOf(pb::Operation::STATE_RUNNING, 25)});
  const ShardctlResult late =
      Run({"apply", "-f", "-", "--materialize", "--timeout=300ms"}, kFile);
  EXPECT_EQ(late.code, ExitCode::kTimedOut);
  EXPECT_THAT(late.err, HasSubstr("operations/o1"));
}

TEST_F(ShardctlCommandTest, DeleteAndWait) {
  EXPECT_EQ(Run({"delete", "deploy", "none"}).code, ExitCode::kFailed);
  EXPECT_EQ(Run({"delete", "deploy/none", "--ignore-not-found"}).code,
            ExitCode::kDone);
  EXPECT_EQ(Run({"delete", "deploy/mlp", "--wait"}).out,
            "deployments/mlp deleted\n");
  EXPECT_THAT(fake_.resources().deployments, SizeIs(0));
  EXPECT_EQ(Run({"delete", "wk/a"}).code, ExitCode::kUsage);
}

TEST_F(ShardctlCommandTest, WaitingForAState) {
  EXPECT_EQ(Run({"wait", "deploy/mlp", "--for=ready"}).out,
            "deployments/mlp is ready\n");
  EXPECT_EQ(Run({"wait", "deploy/gone", "--for=deleted"}).code,
            ExitCode::kDone);
  const ShardctlResult late =
      Run({"wait", "wk/a", "--for=draining", "--timeout=100ms"});
  EXPECT_EQ(late.code, ExitCode::kTimedOut);
  const ShardctlResult never = Run({"wait", "wk/a", "--for=raedy"});
  EXPECT_EQ(never.code, ExitCode::kUsage);
  EXPECT_THAT(never.err, HasSubstr("Did you mean \"ready\"?"));
  FakeResources resources = fake_.resources();
  resources.deployments[0].set_state(pb::Deployment::STATE_FAILED);
  fake_.SetResources(resources);
  EXPECT_EQ(Run({"wait", "deploy/mlp", "--for=ready"}).code, ExitCode::kFailed);
}

TEST_F(ShardctlCommandTest, DrainAndUncordon) {
  EXPECT_EQ(Run({"drain", "a", "b"}).out,
            "workers/a is DRAINING; it goes on to serve deployments/mlp\n"
            "workers/b is DRAINING\n");
  EXPECT_EQ(Run({"uncordon", "workers/a"}).out, "workers/a is READY\n");
}

TEST_F(ShardctlCommandTest, Cancel) {
  FakeResources resources = fake_.resources();
  resources.operations = {OperationOf(pb::Operation::STATE_RUNNING, 25)};
  fake_.SetResources(resources);
  EXPECT_EQ(Run({"cancel", "o1"}).out, "operations/o1 is CANCELLED\n");
  EXPECT_THAT(Run({"get", "op"}).out, HasSubstr("CANCELLED"));
}

TEST_F(ShardctlCommandTest, TopOfDeploymentsAndWorkers) {
  EXPECT_THAT(Run({"top"}).out, AllOf(HasSubstr("STEPS/S"), HasSubstr("66.7")));
  EXPECT_THAT(Run({"top", "workers"}).out, HasSubstr("a      READY"));
  const std::string twice = Run({"top", "--watch", "--times=2"}).out;
  EXPECT_EQ(twice.substr(0, twice.size() / 2), twice.substr(twice.size() / 2));
  EXPECT_EQ(Run({"top", "steps"}).code, ExitCode::kUsage);
}

// A coordinator that lists no steps has them one by one.
TEST_F(ShardctlCommandTest, TopOfAnOlderCoordinator) {
  fake_.LacksNewMethods();
  EXPECT_THAT(Run({"top"}).out, HasSubstr("66.7"));
}

TEST_F(ShardctlCommandTest, TimelineWritesATrace) {
  const std::string path = File("trace.json", "");
  EXPECT_THAT(Run({"timeline", "mlp", "--trace", path}).out,
              HasSubstr("deployments/mlp/steps/2/timeline: "));
  EXPECT_EQ(Run({"timeline", "mlp", "7"}).code, ExitCode::kFailed);
}

TEST_F(ShardctlCommandTest, DiagnoseFindsAndTellsByItsCode) {
  const ShardctlResult fine = Run({"diagnose"});
  EXPECT_EQ(fine.code, ExitCode::kDone) << fine.out << fine.err;
  EXPECT_EQ(fine.out, "Nothing is wrong, by 8 checks.\n");
  FakeResources resources = fake_.resources();
  resources.workers[1].set_state(pb::WorkerNode::STATE_LOST);
  fake_.SetResources(resources);
  const ShardctlResult wrong = Run({"diagnose", "-o", "json"});
  EXPECT_EQ(wrong.code, ExitCode::kFailed);
  const auto findings = nlohmann::json::parse(wrong.out)["findings"];
  ASSERT_THAT(findings, SizeIs(2));
  EXPECT_EQ(findings[0]["resource"], "workers/b");
  EXPECT_EQ(findings[1]["check"], "gang");
  // Notes alone are nothing wrong.
  resources.workers[1].set_state(pb::WorkerNode::STATE_READY);
  fake_.SetResources(resources);
  fake_.LacksNewMethods();
  const ShardctlResult old = Run({"diagnose"});
  EXPECT_EQ(old.code, ExitCode::kDone);
  EXPECT_THAT(old.out, HasSubstr("lacks ListOperations, GetStepTimeline"));
}

TEST_F(ShardctlCommandTest, ColoursOnTerminalsAlone) {
  EXPECT_THAT(RunOnTerminal({"get", "wk"}).out,
              HasSubstr("\033[32mREADY\033[0m"));
  EXPECT_THAT(RunOnTerminal({"get", "wk", "--no-color"}).out,
              Not(HasSubstr("\033")));
  variables_["NO_COLOR"] = "1";
  EXPECT_THAT(RunOnTerminal({"get", "wk"}).out, Not(HasSubstr("\033")));
}

TEST_F(ShardctlCommandTest, Contexts) {
  const std::string file = File("config.yaml", "");
  const std::string config = absl::StrCat("--config=", file);
  EXPECT_EQ(Run({"config", "set-context", "lab", "--address=h:1", config}).out,
            "Context \"lab\" created.\n");
  EXPECT_EQ(Run({"config", "set-context", "b", "--address=h:2", config}).code,
            ExitCode::kDone);
  EXPECT_EQ(Run({"config", "current-context", config}).out, "lab\n");
  EXPECT_EQ(Run({"config", "use-context", "b", config}).code, ExitCode::kDone);
  EXPECT_EQ(Run({"config", "get-contexts", config}).out,
            "CURRENT   NAME   ADDRESS\n"
            "          lab    h:1\n"
            "*         b      h:2\n");
  EXPECT_EQ(Run({"config", "delete-context", "b", config}).code,
            ExitCode::kDone);
  EXPECT_EQ(Run({"config", "current-context", config}).code, ExitCode::kUsage);
  EXPECT_EQ(Run({"config", "use-context", "lba", config}).err,
            "error: no context \"lba\". Did you mean \"lab\"?\n"
            "hint: `shardctl config get-contexts` lists them\n");
}

TEST_F(ShardctlCommandTest, AServicesErrorHasItsDetails) {
  fake_.FailNext(grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "not you"));
  const ShardctlResult result = Run({"get", "wk"});
  EXPECT_EQ(result.code, ExitCode::kFailed);
  EXPECT_EQ(result.err, "error: not you\n  reason: PERMISSION_DENIED\n");
}

}  // namespace
}  // namespace shardplane
