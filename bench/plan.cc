// Prints what planning takes: a JSON object with milliseconds a round, and the
// memory that the process came to need.
// Arguments: a file with a CreateDeploymentRequest, and how many rounds.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/compile.h"
#include "common/errors.h"
#include "common/parallelize_plan.h"
#include "common/plan_matching.h"
#include "common/report.h"
#include "coordinator/messages.h"
#include "proto/message_process.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {
namespace {

struct Times {
  std::vector<std::pair<const char*, double>> parts;  // milliseconds
  absl::Time last = absl::Now();

  void Mark(const char* part) {
    const absl::Time now = absl::Now();
    parts.emplace_back(part, absl::ToDoubleMilliseconds(now - last));
    last = absl::Now();
  }
};

struct Sizes {
  size_t modules = 0;
  size_t assignments = 0;
  size_t instructions = 0;
  size_t cut_parameters = 0;
  size_t distinct_calls = 0;
};

// What CreateDeployment does with a request before a worker hears of it.
absl::StatusOr<Sizes> PlanOnce(const v1::CreateDeploymentRequest& request,
                               Times* times) {
  SP_ASSIGN_OR_RETURN(const CreateCall call, CreateCallFromProto(request));
  const DeploymentSpec& spec = call.spec;
  times->Mark("read");
  const PlanMatches matches = MatchPlan(spec.module, spec.plan);
  times->Mark("match");
  SP_ASSIGN_OR_RETURN(const ResolvedPlan plan,
                      ResolvePlan(spec.module, spec.mesh, spec.plan,
                                  {.mesh_dim = spec.plan_mesh_dim}));
  times->Mark("resolve");
  if (!call.signature.has_value()) {
    return absl::InvalidArgumentError("the request has no signature");
  }
  SP_ASSIGN_OR_RETURN(
      const CompiledProgram compiled,
      Compile(spec.module, spec.mesh, plan, call.signature->signature, {}));
  times->Mark("compile");
  const Report report =
      BuildReport(spec.module, spec.mesh, plan, spec.src_data_rank, &compiled);
  times->Mark("report");
  Sizes sizes{spec.module.modules().size(), plan.assignments.size(),
              compiled.program.instructions.size(), 0, compiled.distinct_calls};
  for (const DTensorSpec& parameter : plan.parameter_specs) {
    sizes.cut_parameters += IsFullyReplicated(parameter) ? 0 : 1;
  }
  return sizes;
}

// Of this process alone: getrusage also counts what it was forked from.
double PeakMegabytes() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("VmHWM:")) return std::atof(line.c_str() + 6) / 1024;
  }
  return 0;
}

void Print(const std::vector<Times>& rounds, const Sizes& sizes) {
  std::printf(
      "{\"modules\": %zu, \"assignments\": %zu, \"instructions\": %zu, "
      "\"cut_parameters\": %zu, \"distinct_calls\": %zu",
      sizes.modules, sizes.assignments, sizes.instructions,
      sizes.cut_parameters, sizes.distinct_calls);
  for (size_t part = 0; part < rounds[0].parts.size(); ++part) {
    std::printf(", \"%s\": [", rounds[0].parts[part].first);
    for (size_t i = 0; i < rounds.size(); ++i) {
      std::printf("%s%.3f", i == 0 ? "" : ", ", rounds[i].parts[part].second);
    }
    std::printf("]");
  }
  std::printf(", \"peak_mb\": %.1f}\n", PeakMegabytes());
}

}  // namespace

int PrintTimes(const char* path, int rounds) {
  std::ifstream file(path, std::ios::binary);
  v1::CreateDeploymentRequest request;
  if (!request.ParseFromIstream(&file)) {
    std::cerr << path << " holds no CreateDeploymentRequest\n";
    return 1;
  }
  SetUpMessageProcess();
  std::vector<Times> times(rounds);
  Sizes sizes;
  for (Times& round : times) {
    round.last = absl::Now();
    absl::StatusOr<Sizes> planned = PlanOnce(request, &round);
    if (!planned.ok()) {
      std::cerr << planned.status() << "\n";
      return 1;
    }
    sizes = *planned;
  }
  Print(times, sizes);
  return 0;
}

}  // namespace shardplane

int main(int argc, char** argv) {
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 1;
  if (argc < 2 || rounds < 1) {
    std::fprintf(stderr, "usage: plan FILE [ROUNDS]\n");
    return 2;
  }
  return shardplane::PrintTimes(argv[1], rounds);
}
