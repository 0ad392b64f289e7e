// What the commands do; command_table.cc says what they take.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_COMMANDS_H_
#define SHARDPLANE_CLIENT_SHARDCTL_COMMANDS_H_

#include "absl/status/statusor.h"
#include "client/shardctl/command.h"

namespace shardplane {

absl::StatusOr<ExitCode> RunPlan(Invocation& invocation);
absl::StatusOr<ExitCode> RunApply(Invocation& invocation);
absl::StatusOr<ExitCode> RunDelete(Invocation& invocation);
absl::StatusOr<ExitCode> RunExplain(Invocation& invocation);
absl::StatusOr<ExitCode> RunGet(Invocation& invocation);
absl::StatusOr<ExitCode> RunDescribe(Invocation& invocation);
absl::StatusOr<ExitCode> RunWait(Invocation& invocation);
absl::StatusOr<ExitCode> RunStep(Invocation& invocation);
absl::StatusOr<ExitCode> RunTrain(Invocation& invocation);
absl::StatusOr<ExitCode> RunTimeline(Invocation& invocation);
absl::StatusOr<ExitCode> RunDrain(Invocation& invocation);
absl::StatusOr<ExitCode> RunUncordon(Invocation& invocation);
absl::StatusOr<ExitCode> RunCancel(Invocation& invocation);
absl::StatusOr<ExitCode> RunTop(Invocation& invocation);
absl::StatusOr<ExitCode> RunEvents(Invocation& invocation);
absl::StatusOr<ExitCode> RunDiagnose(Invocation& invocation);
absl::StatusOr<ExitCode> RunGetContexts(Invocation& invocation);
absl::StatusOr<ExitCode> RunCurrentContext(Invocation& invocation);
absl::StatusOr<ExitCode> RunUseContext(Invocation& invocation);
absl::StatusOr<ExitCode> RunSetContext(Invocation& invocation);
absl::StatusOr<ExitCode> RunDeleteContext(Invocation& invocation);
absl::StatusOr<ExitCode> RunVersion(Invocation& invocation);
absl::StatusOr<ExitCode> RunCompletion(Invocation& invocation);
absl::StatusOr<ExitCode> RunManual(Invocation& invocation);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_COMMANDS_H_
