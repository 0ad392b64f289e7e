// Where a step spent its time.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "coordinator/coordinator.h"

namespace shardplane {
namespace {

absl::Status NotTimed(const DeploymentId& id, StepNumber number,
                      absl::StatusCode code, absl::string_view got) {
  return MakeError(
      code,
      absl::StrCat(ResourceName(id, number),
                   ": expected one of the last training steps, got: ", got),
      {.reason = code == absl::StatusCode::kNotFound ? "STEP_NOT_FOUND"
                                                     : "STEP_NOT_KEPT",
       .metadata = {{"resource", ResourceName(id, number)}}});
}

absl::Status FirstError(const std::vector<absl::Status>& statuses) {
  for (const absl::Status& status : statuses) SP_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StepTrace> Coordinator::GetStepTimeline(
    const DeploymentId& id, StepNumber number) const {
  SP_ASSIGN_OR_RETURN(const DeploymentPtr deployment, Find(id));
  StepTrace trace{.epoch = deployment->gang->epoch()};
  std::shared_ptr<const DeploymentProgram> program;
  {
    absl::MutexLock lock(&deployment->mu);
    const std::optional<StepMarks> marks = deployment->history.MarksOf(number);
    if (!marks.has_value()) {
      return number > deployment->state.last_step()
                 ? NotTimed(id, number, absl::StatusCode::kNotFound,
                            "one that has not run")
                 : NotTimed(id, number, absl::StatusCode::kOutOfRange,
                            "one that is no training step, or no longer kept");
    }
    trace.marks = *marks;
    SP_ASSIGN_OR_RETURN(program, deployment->FindProgramLocked(marks->program));
  }
  std::vector<StepRecording> recordings(deployment->gang->size());
  std::vector<absl::Status> statuses(recordings.size());
  deployment->gang->TryAll(
      {.timeout = options_.call_timeout},
      [&](int rank, WorkerClient& client, const GangRef& gang,
          const CallOptions& options, WorkerClient::Done done) {
        client.GetTimeline(gang, number, options,
                           [&recordings, &statuses, rank,
                            done](absl::StatusOr<StepRecording> recording) {
                             statuses[rank] = recording.status();
                             if (recording.ok())
                               recordings[rank] = *std::move(recording);
                             done(absl::OkStatus());
                           });
      });
  if (const absl::Status status = FirstError(statuses); !status.ok()) {
    return absl::IsNotFound(status)
               ? NotTimed(id, number, absl::StatusCode::kOutOfRange,
                          status.message())
               : status;
  }
  std::vector<Timeline> timelines;
  const ShardedProgram& ran = program->program;
  for (size_t rank = 0; rank < recordings.size(); ++rank) {
    SP_ASSIGN_OR_RETURN(Timeline timeline,
                        Describe(recordings[rank].run, ran,
                                 ran.mesh.Coordinate(static_cast<int>(rank))));
    timelines.push_back(std::move(timeline));
  }
  std::vector<std::vector<int64_t>> waits = WaitsForPeers(ran, timelines);
  for (size_t rank = 0; rank < recordings.size(); ++rank) {
    const StepRecording& recording = recordings[rank];
    trace.ranks.push_back(
        {.worker = deployment->gang->member(static_cast<int>(rank)).worker,
         .received_unix = recording.received_unix,
         .run = std::move(timelines[rank]),
         .waits = std::move(waits[rank]),
         .run_nanos = recording.run_nanos,
         .agree_nanos = recording.agree_nanos,
         .update_nanos = recording.update_nanos});
  }
  return trace;
}

}  // namespace shardplane
