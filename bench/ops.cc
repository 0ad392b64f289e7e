// Prints what the executor adds to an operator: a JSON object a line, times in
// nanoseconds of CPU an operator as [lower quartile, median, upper quartile].
// Argument: how many rounds.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "ATen/Parallel.h"
#include "bench/op_cost.h"

namespace shardplane {
namespace {

void Print(const char* name, const std::vector<double>& values) {
  std::printf("\"%s\": [%.1f, %.1f, %.1f]", name, Quantile(values, 0.25),
              Quantile(values, 0.5), Quantile(values, 0.75));
}

int Run(int rounds) {
  at::set_num_threads(1);
  for (const OpChain& chain : OpChains()) {
    for (const OpCostMode mode : kOpCostModes) {
      const absl::StatusOr<OpCost> cost = MeasureOpCost(chain, mode, rounds);
      if (!cost.ok()) {
        std::fprintf(stderr, "%s\n", cost.status().ToString().c_str());
        return 1;
      }
      std::printf("{\"op\": \"%s\", \"mode\": \"%s\", ", chain.name.c_str(),
                  ToString(mode));
      Print("executor", cost->executor);
      std::printf(", ");
      Print("direct", cost->direct);
      std::printf(", ");
      Print("difference", cost->difference);
      std::printf(", \"samples\": %d}\n", rounds);
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace
}  // namespace shardplane

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 201;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: ops [ROUNDS], at least 1\n");
    return 2;
  }
  try {
    return shardplane::Run(rounds);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
