#include "coordinator/run_outcomes.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/gradient_norm.h"
#include "common/host_tensor.h"

namespace shardplane {
namespace {

// The global loss of the ranks' local values.
absl::StatusOr<HostTensor> AssembleLoss(
    const DeploymentProgram& program, const std::vector<RunOutcome>& outcomes) {
  const Value& loss = program.program.values[program.program.loss];
  std::vector<HostTensor> shards;
  for (const int rank : RanksToAssemble(loss.spec, program.program.mesh)) {
    if (!outcomes[rank].loss.has_value()) {
      return absl::InternalError(
          absl::StrCat("loss: expected one of rank ", rank, ", got: none"));
    }
    shards.push_back(*outcomes[rank].loss);
  }
  return AssembleGlobal(loss.type, loss.spec, program.program.mesh, shards);
}

// The norm that all ranks have computed together. Scaled by different ones,
// replicas would part.
absl::StatusOr<double> AgreedNorm(const std::vector<RunOutcome>& outcomes) {
  const double norm = outcomes[0].gradient_norm;
  for (size_t rank = 1; rank < outcomes.size(); ++rank) {
    const double other = outcomes[rank].gradient_norm;
    if (other == norm || (std::isnan(other) && std::isnan(norm))) continue;
    return MakeError(
        absl::StatusCode::kInternal,
        absl::StrCat("gradient norm of rank ", rank, ": expected rank 0's, ",
                     norm, "; got: ", other),
        {.reason = "GRADIENT_NORMS_DIFFER",
         .metadata = {{"rank", absl::StrCat(rank)},
                      {"expected", absl::StrCat(norm)}}});
  }
  return norm;
}

}  // namespace

uint64_t ExpectedHash(const RunCall& call, const DeploymentProgram* program,
                      const DeviceMesh& mesh, int rank) {
  uint64_t hash = kCollectiveHashSeed;
  if (program != nullptr) {
    hash = call.mode == RunMode::kTrain ? program->train_hash[rank]
                                        : program->forward_hash[rank];
  }
  return call.gradient_norm ? HashCollectives(NormCollectives(mesh), hash)
                            : hash;
}

absl::Status Assemble(const RunCall& call, const DeploymentProgram* program,
                      const std::vector<RunOutcome>& outcomes,
                      StepAnswer* answer) {
  answer->collectives = outcomes[0].collectives;
  const RunOutcome& slowest = *std::max_element(
      outcomes.begin(), outcomes.end(),
      [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  answer->timing.run = slowest.seconds;
  answer->timing.collectives = slowest.collective_seconds;
  for (const RunOutcome& outcome : outcomes) {
    answer->peak_run_bytes.push_back(outcome.peak_bytes);
  }
  if (program != nullptr && program->program.loss >= 0) {
    SP_ASSIGN_OR_RETURN(answer->loss, AssembleLoss(*program, outcomes));
  }
  if (call.gradient_norm) {
    SP_ASSIGN_OR_RETURN(answer->gradient_norm, AgreedNorm(outcomes));
  }
  for (size_t rank = 0;
       call.timeline && program != nullptr && rank < outcomes.size(); ++rank) {
    const ShardedProgram& ran = program->program;
    SP_ASSIGN_OR_RETURN(Timeline timeline,
                        Describe(outcomes[rank].timeline, ran,
                                 ran.mesh.Coordinate(static_cast<int>(rank))));
    answer->timelines.push_back(std::move(timeline));
  }
  return absl::OkStatus();
}

}  // namespace shardplane
