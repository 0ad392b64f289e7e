// A step on the wire to the workers: what is alike for all ranks, the inputs
// above all, is encoded once, and a rank's message shares those bytes.
#ifndef SHARDPLANE_COORDINATOR_STEP_WIRE_H_
#define SHARDPLANE_COORDINATOR_STEP_WIRE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/worker_client.h"
#include "shardplane/v1/worker.pb.h"

namespace shardplane {

// The end of a StepsRequest.Step: first, in `run_bytes`, the fields of `run`
// that are alike for all ranks, then `commit`.
TrainStep::Encoding EncodeStep(const TrainStep& step);

// Its beginning, one rank's: as an element of StepsRequest.steps, up to and
// with the fields of `run` that are its own. Before Encoding.pieces this is a
// StepsRequest of one step; such requests one after the other are one of all
// their steps.
std::string EncodeStepHead(const GangRef& gang, uint64_t expected_hash,
                           const TrainStep::Encoding& encoding);

// What a rank answered; its error, with its ErrorInfo. Internal: what no
// worker should answer.
absl::StatusOr<StepOutcome> OutcomeFromProto(
    const v1::StepsResponse::Step& response);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STEP_WIRE_H_
