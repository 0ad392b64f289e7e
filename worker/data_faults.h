// Data that operators find wrong while ranks depend on each other.
#ifndef SHARDPLANE_WORKER_DATA_FAULTS_H_
#define SHARDPLANE_WORKER_DATA_FAULTS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace shardplane {

// While one of these lives, operators called on its thread note a bad id here
// and go on with a good one, instead of throwing: the rank still runs all its
// collectives, so that a fault in one rank's part of the data fails the step
// and not the gang. Whoever made it asks for status() at the end, and drops
// what was computed if that is an error. One a thread at a time.
class DataFaults {
 public:
  // Made at the end, where what it looks at is on a device that computes on its
  // own: what is wrong, "" if nothing is. Throws what torch throws.
  using Check = std::function<std::string()>;
  struct Deferred {
    Check check;
    std::string where;
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
  void Defer(Check check);
  // Says once where the first one was found, and what was deferred since:
  // "aten.linear.default in net1".
  void Locate(const std::string& where);

  // Makes the checks. Ok, or InvalidArgument (INDEX_OUT_OF_RANGE) with the
  // first message.
  absl::Status status() const;
  // For later, whenever the same work has run again. Then status() is without
  // them.
  std::vector<Deferred> TakeDeferred();

 private:
  const bool defers_;
  std::string message_;
  std::string where_;
  std::vector<Deferred> deferred_;
};

// As DataFaults::status.
absl::Status MakeChecks(const std::vector<DataFaults::Deferred>& deferred);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_DATA_FAULTS_H_
