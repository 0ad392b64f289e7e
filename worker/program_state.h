// The tensors of one run of a prepared program. Private to it.
#ifndef SHARDPLANE_WORKER_PROGRAM_STATE_H_
#define SHARDPLANE_WORKER_PROGRAM_STATE_H_

#include <chrono>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/flat_hash_map.h"
#include "worker/prepared_program.h"

namespace shardplane {

struct PreparedProgram::State {
  Recording recording = Recording::kOff;
  bool keep_products = false;
  std::vector<at::Tensor> values;
  std::vector<SegmentRecording> recordings;              // by segment
  absl::flat_hash_map<ValueId, WeightProduct> products;  // by gradient
  Communicator* communicator = nullptr;
  struct Begun {
    const Bucket* step = nullptr;
    Communicator::BegunEach wait;
    std::vector<at::Tensor> inputs;  // see End
  };
  std::vector<Begun> begun;  // in the order of their beginning
  RunTimeline* timeline = nullptr;
  std::chrono::steady_clock::time_point start = {};
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_PROGRAM_STATE_H_
