#include "client/shardctl/findings.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/shardctl/resource_rows.h"
#include "client/shardctl/step_trace.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;
using Severity = Finding::Severity;

constexpr absl::Duration kLongInState = absl::Minutes(10);
constexpr absl::Duration kNoProgress = absl::Minutes(1);
// A rank that computes this much longer than the median one is slow.
constexpr double kSlow = 1.5;
// Below it, differences are noise.
constexpr int64_t kSlowNanos = 100'000;

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) +
         absl::Nanoseconds(time.nanos());
}

std::string Because(const std::string& reason) {
  return reason.empty() ? "" : absl::StrCat(": ", reason);
}

struct StateFinding {
  pb::WorkerNode::State state;
  Severity severity;
  const char* hint;
};
constexpr StateFinding kWorkerStates[] = {
    {pb::WorkerNode::STATE_LOST, Severity::kError,
     "start it again, or another; its log says how it ended"},
    {pb::WorkerNode::STATE_FENCED, Severity::kError,
     "another process has taken its name: give each worker its own --id"},
    {pb::WorkerNode::STATE_DRAINING, Severity::kWarning,
     "`shardctl uncordon` gives it to gangs again"},
    {pb::WorkerNode::STATE_REGISTERING, Severity::kNote,
     "it is ready once the coordinator has reached it"},
};

std::vector<Finding> WorkerStates(const ClusterSnapshot& snapshot) {
  std::vector<Finding> findings;
  for (const pb::WorkerNode& worker : snapshot.workers) {
    for (const StateFinding& row : kWorkerStates) {
      if (worker.state() != row.state) continue;
      findings.push_back({row.severity, "", worker.name(),
                          absl::StrCat("is ", StateText(worker.state()),
                                       Because(worker.state_reason())),
                          row.hint});
    }
  }
  return findings;
}

std::vector<Finding> Capacity(const ClusterSnapshot& snapshot) {
  const auto ready =
      std::count_if(snapshot.workers.begin(), snapshot.workers.end(),
                    [](const pb::WorkerNode& worker) {
                      return worker.state() == pb::WorkerNode::STATE_READY;
                    });
  if (snapshot.workers.empty()) {
    return {{Severity::kWarning, "", "workers", "there are none",
             "start workers with --coordinator=ADDRESS"}};
  }
  if (ready == 0) {
    return {{Severity::kError, "", "workers", "none of them is READY",
             "`shardctl get workers -o wide` shows why"}};
  }
  return {};
}

// Whether a deployment is held up since its last change.
std::vector<Finding> DeploymentStates(const ClusterSnapshot& snapshot) {
  std::vector<Finding> findings;
  for (const pb::Deployment& deployment : snapshot.deployments) {
    const absl::Duration since =
        snapshot.now - TimeOf(deployment.update_time());
    if (deployment.state() == pb::Deployment::STATE_FAILED) {
      findings.push_back(
          {Severity::kError, "", deployment.name(),
           absl::StrCat("is FAILED", Because(deployment.state_reason())),
           "delete it and create it again: `shardctl apply --replace`"});
    } else if (deployment.state() == pb::Deployment::STATE_AWAITING_DATA &&
               since > kLongInState) {
      findings.push_back(
          {Severity::kWarning, "", deployment.name(),
           absl::StrCat("awaits its parameters for ", AgeText(since)),
           "upload them, or `shardctl apply --materialize`"});
    } else if (deployment.state() == pb::Deployment::STATE_FORMING &&
               since > kNoProgress) {
      findings.push_back({Severity::kWarning, "", deployment.name(),
                          absl::StrCat("forms its gang for ", AgeText(since)),
                          "`shardctl get workers` shows who does not answer"});
    }
  }
  return findings;
}

std::vector<Finding> Members(const ClusterSnapshot& snapshot) {
  std::vector<Finding> findings;
  for (const pb::Deployment& deployment : snapshot.deployments) {
    for (const pb::WorkerNode& worker : snapshot.workers) {
      const bool serves =
          std::find(deployment.workers().begin(), deployment.workers().end(),
                    worker.name()) != deployment.workers().end();
      if (!serves || deployment.state() == pb::Deployment::STATE_FAILED ||
          (worker.state() != pb::WorkerNode::STATE_LOST &&
           worker.state() != pb::WorkerNode::STATE_FENCED)) {
        continue;
      }
      findings.push_back({Severity::kError, "", deployment.name(),
                          absl::StrCat("its ", worker.name(), " is ",
                                       StateText(worker.state())),
                          "its next step fails; create it again"});
    }
  }
  return findings;
}

std::vector<Finding> Operations(const ClusterSnapshot& snapshot) {
  std::vector<Finding> findings;
  for (const pb::Operation& operation : snapshot.operations) {
    const absl::Duration since = snapshot.now - TimeOf(operation.update_time());
    if (operation.state() == pb::Operation::STATE_FAILED) {
      findings.push_back(
          {Severity::kWarning, "", operation.name(),
           absl::StrCat("has FAILED", Because(operation.error().message())),
           absl::StrCat("`shardctl describe ", operation.resource(), "`")});
    } else if (operation.state() == pb::Operation::STATE_RUNNING &&
               since > kNoProgress) {
      findings.push_back(
          {Severity::kWarning, "", operation.name(),
           absl::StrFormat("has not come on for %s, at %.0f%% of \"%s\"",
                           AgeText(since), operation.percent(),
                           operation.phase()),
           absl::StrCat("`shardctl cancel ", operation.name(), "` ends it")});
    }
  }
  return findings;
}

// Ranks of one step that compute much longer than the median, for whom the
// others wait.
std::vector<Finding> SlowRanksOf(const pb::StepTimeline& timeline) {
  std::vector<Finding> findings;
  std::vector<int64_t> compute;
  for (const pb::RankTimeline& rank : timeline.ranks()) {
    compute.push_back(TimesOf(rank).compute);
  }
  if (compute.size() < 2) return findings;
  std::vector<int64_t> sorted = compute;
  std::sort(sorted.begin(), sorted.end());
  const int64_t median = sorted[(sorted.size() - 1) / 2];
  for (size_t i = 0; i < compute.size(); ++i) {
    const double times = static_cast<double>(compute[i]) /
                         static_cast<double>(std::max<int64_t>(1, median));
    if (times < kSlow || compute[i] - median < kSlowNanos) continue;
    findings.push_back(
        {Severity::kWarning, "", timeline.ranks(static_cast<int>(i)).worker(),
         absl::StrFormat("computed %.1f times as long as the median rank in "
                         "%s, and too long in each of the last steps",
                         times, timeline.name()),
         "what else runs on its machine? `shardctl timeline` shows the step"});
  }
  return findings;
}

// Those that are slow in all of a deployment's last steps: in a single one any
// rank may be.
std::vector<Finding> SlowRanks(const ClusterSnapshot& snapshot) {
  std::map<std::string, size_t> steps;  // by deployment
  std::map<std::pair<std::string, std::string>, std::vector<Finding>> slow;
  for (const pb::StepTimeline& timeline : snapshot.timelines) {
    const std::string deployment =
        timeline.name().substr(0, timeline.name().find("/steps/"));
    ++steps[deployment];
    for (Finding& finding : SlowRanksOf(timeline)) {
      slow[{deployment, finding.resource}].push_back(std::move(finding));
    }
  }
  std::vector<Finding> findings;
  for (auto& [where, found] : slow) {
    if (found.size() < 2 || found.size() < steps[where.first]) continue;
    findings.push_back(std::move(found.front()));
  }
  return findings;
}

std::vector<Finding> PlanWarnings(const ClusterSnapshot& snapshot) {
  std::vector<Finding> findings;
  for (const pb::Deployment& deployment : snapshot.deployments) {
    for (const pb::Diagnostic& diagnostic : deployment.report().diagnostics()) {
      if (diagnostic.severity() == pb::SEVERITY_WARNING) {
        findings.push_back(
            {Severity::kNote, "", deployment.name(),
             absl::StrCat(diagnostic.reason(), ": ", diagnostic.message()),
             "`shardctl plan --strict` makes such a plan an error"});
      }
    }
  }
  return findings;
}

std::vector<Finding> Lacking(const ClusterSnapshot& snapshot) {
  if (snapshot.lacking.empty()) return {};
  return {{Severity::kNote, "", "coordinator",
           absl::StrCat("is older than this shardctl, and lacks ",
                        absl::StrJoin(snapshot.lacking, ", ")),
           "what they would show was not looked at"}};
}

}  // namespace

const char* SeverityText(Severity severity) {
  constexpr const char* kTexts[] = {"NOTE", "WARNING", "ERROR"};
  return kTexts[static_cast<int>(severity)];
}

const std::vector<Check>& Checks() {
  static const auto* const kChecks = new std::vector<Check>{
      {"worker-state", "workers that are lost, fenced or draining",
       &WorkerStates},
      {"capacity", "no worker, or none that is ready", &Capacity},
      {"deployment-state", "deployments that have failed or are held up",
       &DeploymentStates},
      {"gang", "deployments whose workers are gone", &Members},
      {"operation", "operations that have failed or do not come on",
       &Operations},
      {"slow-rank", "ranks that compute longer than others", &SlowRanks},
      {"plan", "patterns without a match, operators that run replicated",
       &PlanWarnings},
      {"version", "a coordinator that lacks methods", &Lacking},
  };
  return *kChecks;
}

std::vector<Finding> Diagnose(const ClusterSnapshot& snapshot) {
  std::vector<Finding> all;
  for (const Check& check : Checks()) {
    for (Finding& finding : check.find(snapshot)) {
      finding.check = check.name;
      all.push_back(std::move(finding));
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Finding& a, const Finding& b) {
                     return a.severity > b.severity;
                   });
  return all;
}

}  // namespace shardplane
