// Data that operators find wrong while ranks depend on each other.
#ifndef SHARDPLANE_WORKER_DATA_FAULTS_H_
#define SHARDPLANE_WORKER_DATA_FAULTS_H_

#include <functional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"

namespace shardplane {

// While one of these lives, operators called on its thread note a bad id here
// and go on with a good one, instead of throwing: the rank still runs all its
// collectives, so that a fault in one rank's part of the data fails the step
// and not the gang. Whoever made it asks for status() at the end, and drops
// what was computed if that is an error. One a thread at a time.
class DataFaults {
 public:
  // For the end, as a device that computes on its own is asked: bool[], whether
  // something is wrong, and then what. Throws what torch throws.
  struct Deferred {
    at::Tensor bad;
    std::function<std::string()> message;
    std::string where;
  };
  // All of a run, asked for at once.
  struct Checks {
    at::Tensor bad;  // bool[n] of n deferred ones
    std::vector<Deferred> deferred;
  };

  // `defers`: operators shall Defer what they would wait for the device to say.
  explicit DataFaults(bool defers = false);
  ~DataFaults();
  DataFaults(const DataFaults&) = delete;
  DataFaults& operator=(const DataFaults&) = delete;

  // This thread's, or nullptr: then operators throw.
  static DataFaults* Current();

  void Note(std::string message);  // the first one counts
  bool noted() const { return !message_.empty(); }
  bool defers() const { return defers_; }
  void Defer(at::Tensor bad, std::function<std::string()> message);
  // Says once where the first one was found, and what was deferred since:
  // "aten.linear.default in net1".
  void Locate(const std::string& where);

  // Asks for what was deferred. Ok, or InvalidArgument (INDEX_OUT_OF_RANGE)
  // with the first message.
  absl::Status status() const;
  // For later, whenever the same work has run again. Then status() is without
  // them.
  Checks TakeDeferred();

 private:
  const bool defers_;
  std::string message_;
  std::string where_;
  std::vector<Deferred> deferred_;
};

// As DataFaults::status.
absl::Status MakeChecks(const DataFaults::Checks& checks);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_DATA_FAULTS_H_
