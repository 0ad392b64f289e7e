// What is wrong with a cluster, by what the API tells of it.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_FINDINGS_H_
#define SHARDPLANE_CLIENT_SHARDCTL_FINDINGS_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

// What the checks look at. Of a coordinator that lacks a method: nothing of
// its kind, and its name in `lacking`.
struct ClusterSnapshot {
  absl::Time now;
  std::vector<v1::WorkerNode> workers;
  std::vector<v1::Deployment> deployments;  // with their reports
  std::vector<v1::Operation> operations;
  // Of the last steps of each deployment, the last one first.
  std::vector<v1::StepTimeline> timelines;
  std::vector<std::string> lacking;  // "ListOperations"
};

struct Finding {
  enum class Severity { kNote, kWarning, kError };
  Severity severity = Severity::kNote;
  std::string check;     // "worker-state"
  std::string resource;  // "workers/w-0"; "coordinator"
  std::string what;
  std::string hint;
  friend bool operator==(const Finding&, const Finding&) = default;
};
const char* SeverityText(Finding::Severity severity);

struct Check {
  const char* name;
  const char* about;  // what it looks for
  std::vector<Finding> (*find)(const ClusterSnapshot&);
};
// In the order in which they run.
const std::vector<Check>& Checks();

// Of all checks; the worst first, else in their order.
std::vector<Finding> Diagnose(const ClusterSnapshot& snapshot);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_FINDINGS_H_
