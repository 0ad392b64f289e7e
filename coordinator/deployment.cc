#include "coordinator/deployment.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"

namespace shardplane {

Deployment::Deployment(DeploymentState state_in, std::string uid_in,
                       std::shared_ptr<const DeploymentSpec> spec_in,
                       ResolvedPlan plan_in, Report report_in,
                       std::shared_ptr<Gang> gang_in)
    : id(state_in.id()),
      uid(std::move(uid_in)),
      spec(std::move(spec_in)),
      plan(std::move(plan_in)),
      gang(std::move(gang_in)),
      state(std::move(state_in)),
      report(std::make_shared<const Report>(std::move(report_in))) {}

DeploymentInfo Deployment::Info() {
  absl::MutexLock lock(&mu);
  DeploymentInfo info{.id = id,
                      .uid = uid,
                      .etag = state.etag(),
                      .create_time = state.create_time(),
                      .update_time = state.update_time(),
                      .phase = state.phase(),
                      .reason = state.reason(),
                      .spec = spec,
                      .plan_mesh_dim = spec->mesh.dims()[plan.mesh_dim].name,
                      .report = report,
                      .last_step = state.last_step(),
                      .epoch = state.epoch(),
                      .operation = operation};
  for (const RankMember& member : state.members()) {
    info.workers.push_back(member.worker);
  }
  for (const auto& program : programs) {
    info.programs.push_back(program->id);
  }
  return info;
}

absl::StatusOr<std::shared_ptr<const DeploymentProgram>>
Deployment::FindProgram(const ProgramId& program) {
  absl::MutexLock lock(&mu);
  return FindProgramLocked(program);
}

absl::StatusOr<std::shared_ptr<const DeploymentProgram>>
Deployment::FindProgramLocked(const ProgramId& program) const {
  for (const auto& candidate : programs) {
    if (candidate->id == program) {
      return candidate;
    }
  }
  std::vector<std::string> known;
  for (const auto& candidate : programs) {
    known.push_back(candidate->id.value);
  }
  const std::string name = ResourceName(id, program);
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat(ResourceName(id), " has the programs [",
                                absl::StrJoin(known, ", "), "], got: ", name),
                   {.reason = "PROGRAM_NOT_FOUND",
                    .metadata = {{"resource", name},
                                 {"remedy", "create it with CreateProgram"}}});
}

absl::StatusOr<Deployment::CanonicalParameter> Deployment::FindParameter(
    absl::string_view fqn, absl::string_view field) const {
  const Parameter* found = spec->module.FindParameter(fqn);
  if (found == nullptr) {
    return MakeError(
        absl::StatusCode::kNotFound,
        absl::StrCat(field, ": expected a parameter or buffer of ",
                     ResourceName(id), ", got: \"", fqn, "\""),
        {.reason = "PARAMETER_NOT_FOUND",
         .metadata = {{"field", std::string(field)},
                      {"fqn", std::string(fqn)},
                      {"resource",
                       absl::StrCat(ResourceName(id), "/parameters/", fqn)}}});
  }
  const Parameter& canonical = spec->module.Canonical(*found);
  const size_t index = &canonical - spec->module.parameters().data();
  return CanonicalParameter{&canonical, &plan.parameter_specs[index]};
}

absl::StatusOr<std::vector<int>> Deployment::SourceRanks(
    std::optional<int> rank) const {
  const DeviceMesh& mesh = spec->mesh;
  const int size = mesh.dim_size(plan.mesh_dim);
  if (rank.has_value() && (*rank < 0 || *rank >= size)) {
    const std::string expected = absl::StrCat("0 to ", size - 1);
    return MakeError(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("header.rank: expected a rank of mesh dim \"",
                     mesh.dims()[plan.mesh_dim].name, "\", ", expected,
                     ", got: ", *rank),
        {.reason = "RANK_OUT_OF_RANGE",
         .metadata = {{"field", "header.rank"}, {"expected", expected}}});
  }
  const bool scattered = spec->src_data_rank.has_value();
  const std::optional<int> group_rank =
      rank.has_value() ? rank : spec->src_data_rank;
  std::vector<int> ranks;
  for (int r = 0; r < mesh.size(); ++r) {
    std::vector<int> coordinate = mesh.Coordinate(r);
    const int along_plan = std::exchange(coordinate[plan.mesh_dim], 0);
    // Scattered data start at rank 0 of every other mesh dim.
    const bool first_elsewhere = mesh.Rank(coordinate) == 0;
    if ((!group_rank.has_value() || along_plan == *group_rank) &&
        (!scattered || first_elsewhere)) {
      ranks.push_back(r);
    }
  }
  return ranks;
}

std::shared_ptr<const DeploymentProgram> MakeProgram(
    const DeploymentId& deployment, PlannedProgram planned, int num_inputs,
    absl::Time now) {
  auto program = std::make_shared<DeploymentProgram>();
  program->deployment = deployment;
  program->program = std::move(planned.compiled.program);
  program->report = std::move(planned.report);
  program->uid = Digest(program->program);
  program->id = ProgramId{absl::StrCat("p", program->uid.substr(0, 12))};
  program->create_time = now;
  program->num_inputs = num_inputs;
  const DeviceMesh& mesh = program->program.mesh;
  for (int rank = 0; rank < mesh.size(); ++rank) {
    const std::vector<int> coordinate = mesh.Coordinate(rank);
    const uint64_t forward = HashCollectives(
        Collectives(program->program, Phase::kForward, coordinate));
    program->forward_hash.push_back(forward);
    program->train_hash.push_back(HashCollectives(
        Collectives(program->program, Phase::kBackward, coordinate), forward));
  }
  return program;
}

}  // namespace shardplane
