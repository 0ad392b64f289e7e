#include "worker/captured_update.h"

#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "worker/torch_status.h"

namespace shardplane {
namespace {

constexpr int kCallsBefore = 2;  // of the same identity, in a row
// Each capture waits for the device. Where so many were of no use for long,
// the next will not be either.
constexpr int kMostCaptures = 8;

}  // namespace

bool CapturedUpdate::Counted(const UpdateIdentity& identity) {
  if (identity != last_) {
    last_ = identity;
    in_a_row_ = 0;
  }
  ++in_a_row_;
  if (Fits(identity) || in_a_row_ <= kCallsBefore) return false;
  if (captures_ < kMostCaptures) return true;
  GiveUp(absl::ResourceExhaustedError(
      absl::StrCat("capturing an update: expected one that stays, got: another "
                   "after ",
                   captures_, " that were captured")));
  return false;
}

void CapturedUpdate::GiveUp(const absl::Status& why) {
  given_up_ = true;
  captured_.reset();
  on_capture_(why);
}

void CapturedUpdate::Capture(absl::Span<const UpdateBatch> batches,
                             UpdateIdentity identity, bool clips) {
  ++captures_;
  captured_.reset();  // its memory
  Captured made{.identity = std::move(identity),
                .numbers = MakeNumbers(batches, clips)};
  const absl::Status status = CatchTorch("capturing an update", [&] {
    made.graph = make_graph_();
    // Copies: the graph may keep the work, and the update changes.
    made.graph->Capture(
        [numbers = made.numbers,
         of = std::vector<UpdateBatch>(batches.begin(), batches.end())] {
          CallKernels(of, numbers);
          return std::vector<at::Tensor>();
        });
    return absl::OkStatus();
  });
  if (!status.ok()) return GiveUp(status);
  captured_ = std::move(made);
  on_capture_(status);
}

void CapturedUpdate::Run(absl::Span<const UpdateBatch> batches,
                         std::optional<double> clip_scale) {
  if (batches.empty()) return;
  const bool clips = clip_scale.has_value();
  UpdateIdentity identity;
  if (!given_up_) {
    identity = IdentityOf(batches, clips);
    if (Counted(identity)) Capture(batches, identity, clips);
  }
  if (!given_up_ && Fits(identity)) {
    FillNumbers(batches, clip_scale, captured_->numbers);
    captured_->graph->Replay();
    return;
  }
  UpdateNumbers numbers = MakeNumbers(batches, clips);
  FillNumbers(batches, clip_scale, numbers);
  CallKernels(batches, numbers);
}

}  // namespace shardplane
