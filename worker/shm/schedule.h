// In which order one rank takes the steps of a transfer's chunks.
#ifndef SHARDPLANE_WORKER_SHM_SCHEDULE_H_
#define SHARDPLANE_WORKER_SHM_SCHEDULE_H_

#include <cstdint>

namespace shardplane {

enum class ShmStep { kWrite, kReduce, kRead };

// Chunks follow each other one round apart, so that a rank writes the next one
// while others are still at the last. Three chunks, with a reduce step:
//
//   write 0 | write 1, reduce 0 | write 2, reduce 1, read 0 | reduce 2, read 1
//   | read 2
//
// Writing and reducing are publications; their numbers are the same on all
// ranks.
class ShmSchedule {
 public:
  enum class Reduce { kNo, kYes };
  // `chunks` > 0.
  ShmSchedule(int64_t chunks, Reduce reduce)
      : chunks_(chunks), stages_(reduce == Reduce::kYes ? 3 : 2) {}

  bool done() const { return round_ == chunks_ + stages_ - 1; }
  // The next step, unless done.
  ShmStep step() const;
  int64_t chunk() const { return round_ - stage_; }
  void Advance();

  int64_t chunks() const { return chunks_; }
  int64_t publications() const { return chunks_ * (stages_ - 1); }
  // No publication is left, but perhaps reading.
  bool all_published() const { return published_ == publications(); }
  // The last publication that a chunk's reading waits for, counted from 0.
  int64_t LastPublication(int64_t chunk) const;
  // The publication of writing it.
  int64_t WritePublication(int64_t chunk) const;

 private:
  int64_t chunks_;
  int stages_;
  int64_t round_ = 0;
  int stage_ = 0;
  int64_t published_ = 0;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_SHM_SCHEDULE_H_
