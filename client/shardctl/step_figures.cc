#include "client/shardctl/step_figures.h"

#include <algorithm>

namespace shardplane {

StepFigures FiguresOf(const std::vector<v1::StepResult>& steps) {
  StepFigures figures{.steps = steps.size()};
  double sum = 0;
  std::vector<double> seconds;
  for (const v1::StepResult& step : steps) {
    sum += step.duration_seconds();
    seconds.push_back(step.duration_seconds());
    figures.run +=
        step.timing().run_seconds() - step.timing().collective_seconds();
    figures.collectives += step.timing().collective_seconds();
    figures.commit += step.timing().commit_call_seconds();
  }
  if (sum <= 0) return figures;
  std::sort(seconds.begin(), seconds.end());
  figures.median_seconds = seconds[seconds.size() / 2];
  figures.steps_per_second = static_cast<double>(steps.size()) / sum;
  figures.run /= sum;
  figures.collectives /= sum;
  figures.commit /= sum;
  return figures;
}

}  // namespace shardplane
