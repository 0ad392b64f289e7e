// Checks what a call brings against what its program takes.
#ifndef SHARDPLANE_COORDINATOR_STEP_INPUTS_H_
#define SHARDPLANE_COORDINATOR_STEP_INPUTS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/deployment.h"
#include "coordinator/upload_book.h"
#include "proto/convert/types.h"

namespace shardplane {

// InvalidArgument, naming `prefix` + "inputs[i]" or "targets[i]" with what was
// expected and what came: another number, shape or dtype. NotFound: an upload
// that is not there. ResourceExhausted: inline bytes that together do not fit
// into one message.
//   CheckInputs(program, {f32[8, 11]}, {}, "train.", uploads)
//     -> "train.inputs[0]: expected f32[8, 10], got: f32[8, 11]"
absl::Status CheckInputs(const DeploymentProgram& program,
                         absl::Span<const TensorSource> inputs,
                         absl::Span<const TensorSource> targets,
                         absl::string_view prefix, const UploadBook& uploads);

// The ids of those that were uploaded.
std::vector<std::string> UploadsOf(absl::Span<const TensorSource> sources);

}  // namespace shardplane

#endif  // SHARDPLANE_COORDINATOR_STEP_INPUTS_H_
