// Time spent in a scope.
#ifndef SHARDPLANE_WORKER_STOPWATCH_H_
#define SHARDPLANE_WORKER_STOPWATCH_H_

#include <chrono>

namespace shardplane {

// Adds the time of its life.
class Stopwatch {
 public:
  explicit Stopwatch(double* seconds) : seconds_(seconds) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() {
    *seconds_ +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
            .count();
  }

 private:
  const std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
  double* const seconds_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_STOPWATCH_H_
