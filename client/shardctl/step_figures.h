// Figures of a deployment's last steps.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_STEP_FIGURES_H_
#define SHARDPLANE_CLIENT_SHARDCTL_STEP_FIGURES_H_

#include <cstddef>
#include <vector>

#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

struct StepFigures {
  size_t steps = 0;
  double steps_per_second = 0;  // while it steps: what lies between counts not
  double median_seconds = 0;
  // Parts of all their time, 0 to 1; the rest is RPC and the coordinator's own.
  // `run` is without the collectives.
  double run = 0;
  double collectives = 0;
  double commit = 0;
};

StepFigures FiguresOf(const std::vector<v1::StepResult>& steps);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_STEP_FIGURES_H_
