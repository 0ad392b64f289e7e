// Data that operators find wrong while ranks depend on each other.
#ifndef SHARDPLANE_WORKER_DATA_FAULTS_H_
#define SHARDPLANE_WORKER_DATA_FAULTS_H_

#include <string>

#include "absl/status/status.h"

namespace shardplane {

// While one of these lives, operators called on its thread note a bad id here
// and go on with a good one, instead of throwing: the rank still runs all its
// collectives, so that a fault in one rank's part of the data fails the step
// and not the gang. Whoever made it asks for status() at the end, and drops
// what was computed if that is an error. One a thread at a time.
class DataFaults {
 public:
  DataFaults();
  ~DataFaults();
  DataFaults(const DataFaults&) = delete;
  DataFaults& operator=(const DataFaults&) = delete;

  // This thread's, or nullptr: then operators throw.
  static DataFaults* Current();

  void Note(std::string message);  // the first one counts
  bool noted() const { return !message_.empty(); }
  // Says once where the first one was found: "aten.linear.default in net1".
  void Locate(const std::string& where);

  // Ok, or InvalidArgument (INDEX_OUT_OF_RANGE) with the first message.
  absl::Status status() const;

 private:
  std::string message_;
  std::string where_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_DATA_FAULTS_H_
