#include "worker/range_names.h"

#include <algorithm>
#include <variant>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/program_text.h"

namespace shardplane {
namespace {

constexpr size_t kMostNames = 3;

// "a, b, c and 2 more", each once.
std::string Listed(const std::vector<std::string>& names) {
  std::vector<std::string> distinct;
  for (const std::string& name : names) {
    if (!absl::c_linear_search(distinct, name)) distinct.push_back(name);
  }
  const size_t shown = std::min(distinct.size(), kMostNames);
  std::string list =
      absl::StrJoin(distinct.begin(), distinct.begin() + shown, ", ");
  if (shown < distinct.size()) {
    absl::StrAppend(&list, " and ", distinct.size() - shown, " more");
  }
  return list;
}

class Namer {
 public:
  explicit Namer(const ShardedProgram& program) : program_(program) {}

  // Its operators are named instead.
  std::string Of(const RunSegment&) const { return ""; }
  std::string Of(const RunSegmentBackward& run) const {
    return absl::StrCat("backward of ",
                        Listed(OperatorNames(program_.segments[run.segment])));
  }
  std::string Of(const RunWeightGradients& run) const {
    return absl::StrCat("weight gradients of ", Values(run.weights));
  }
  std::string Of(const Redistribute& step) const {
    if (!IsCollective(step.kind) || IsAlone(step.mesh_dim)) return "";
    return absl::StrCat(OperationText(step, program_.mesh), " ",
                        Values({step.input}));
  }
  std::string Of(const Bucket& bucket) const {
    if (IsAlone(bucket.mesh_dim)) return "";
    return absl::StrCat(bucket.async ? "start " : "",
                        OperationText(bucket, program_.mesh), " ",
                        Values(bucket.inputs));
  }
  std::string Of(const Wait& wait) const {
    return absl::StrCat("wait ", Values(wait.values));
  }
  std::string Of(const Reshard&) const { return ""; }
  std::string Of(const Accumulate& sum) const {
    return absl::StrCat("accumulate ", Values({sum.output}));
  }
  std::string Of(const Ones&) const { return ""; }
  std::string Of(const Free&) const { return ""; }

 private:
  bool IsAlone(int mesh_dim) const {
    return program_.mesh.dim_size(mesh_dim) == 1;
  }
  std::string Values(const std::vector<ValueId>& ids) const {
    std::vector<std::string> names;
    for (const ValueId id : ids) names.push_back(program_.values[id].name);
    return Listed(names);
  }

  const ShardedProgram& program_;
};

}  // namespace

std::vector<std::string> OperatorNames(const Segment& segment) {
  std::vector<std::string> names;
  for (const Op& op : segment.ops) {
    names.push_back(op.fqn.empty() ? op.target : op.fqn);
  }
  return names;
}

std::vector<std::string> InstructionNames(const ShardedProgram& program) {
  const Namer namer(program);
  std::vector<std::string> names;
  for (const Instruction& instruction : program.instructions) {
    names.push_back(std::visit([&](const auto& step) { return namer.Of(step); },
                               instruction));
  }
  return names;
}

}  // namespace shardplane
