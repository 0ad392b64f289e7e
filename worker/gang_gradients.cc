#include "worker/gang_gradients.h"

#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "common/errors.h"
#include "common/gradient_norm.h"
#include "worker/global_norm.h"

namespace shardplane {
namespace {

void UpdateBuffers(const NamedTensors& locals, const NamedTensors& updates) {
  const at::AutoGradMode no_grad(false);
  for (const auto& [fqn, update] : updates) locals.at(fqn).copy_(update);
}

}  // namespace

void GangGradients::LeaveMemoryOf(const std::shared_ptr<CapturedRun>& captured,
                                  bool accumulate) {
  if (memory_of_ != captured || !captured->holds_results()) return;
  if (accumulate) {
    for (auto& [fqn, gradient] : gradients_) gradient = gradient.clone();
  } else {
    gradients_.clear();
  }
  memory_of_.reset();
}

absl::StatusOr<double> GangGradients::Norm(const Parameters& parameters,
                                           const DeviceMesh& mesh,
                                           absl::Span<const int> coordinate,
                                           Communicator& communicator) {
  MergePending();
  NamedTensors& gradients =
      pending_.has_value() ? pending_->gradients : gradients_;
  MakeProducts(pending_.has_value() ? pending_->products : products_,
               gradients);
  absl::StatusOr<double> norm =
      GlobalNorm(parameters, gradients, mesh, coordinate, communicator);
  if (norm.ok()) {
    norm_ = *norm;
  } else {
    pending_.reset();
  }
  return norm;
}

void GangGradients::MergePending() {
  if (!pending_.has_value() || !pending_->accumulate) return;
  MakeProducts(pending_->products, pending_->gradients);
  MakeProducts(products_, gradients_);
  for (auto& [fqn, gradient] : pending_->gradients) {
    const auto earlier = gradients_.find(fqn);
    if (earlier == gradients_.end()) continue;
    gradient = earlier->second.add(gradient);
  }
  // Parameters that this program does not use keep what they have.
  pending_->gradients.insert(gradients_.begin(), gradients_.end());
  pending_->accumulate = false;
}

absl::Status GangGradients::CheckNorm(std::optional<double> clip_norm) const {
  if (!clip_norm.has_value() || norm_.has_value()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      "clip_norm: expected a run that told the norm of the gradients; got: "
      "none",
      {.reason = "NO_GRADIENT_NORM", .metadata = {{"field", "clip_norm"}}});
}

absl::Status GangGradients::CheckCommit(
    const NamedTensors& locals,
    const std::optional<OptimizerOptions>& optimizer,
    std::optional<double> clip_norm) {
  if (optimizer.has_value()) {
    SP_RETURN_IF_ERROR(optimizers_.Check(*optimizer, locals));
  }
  return CheckNorm(clip_norm);
}

absl::Status GangGradients::Commit(
    const NamedTensors& locals,
    const std::optional<OptimizerOptions>& optimizer,
    std::optional<double> clip_norm) {
  SP_RETURN_IF_ERROR(CheckCommit(locals, optimizer, clip_norm));
  MergePending();
  const std::optional<double> norm = std::exchange(norm_, std::nullopt);
  if (pending_.has_value()) {
    UpdateBuffers(locals, pending_->updates);
    gradients_ = std::move(pending_->gradients);
    products_ = std::move(pending_->products);
    memory_of_ = std::move(pending_->memory_of);
    if (memory_of_ != nullptr) memory_of_->CountCommitted();
    pending_.reset();
  }
  if (!optimizer.has_value()) return absl::OkStatus();
  std::optional<double> scale;
  if (clip_norm.has_value()) scale = ClipScale(*norm, *clip_norm);
  return optimizers_.Apply(*optimizer, locals, gradients_, products_, scale);
}

void GangGradients::Discard() {
  pending_.reset();
  norm_.reset();
}

void GangGradients::LeaveGroups() {
  if (memory_of_ != nullptr) memory_of_->LeaveGroups();
  if (pending_.has_value() && pending_->memory_of != nullptr) {
    pending_->memory_of->LeaveGroups();
  }
}

at::Tensor GangGradients::Find(const std::string& fqn) const {
  const NamedTensors& gradients =
      pending_.has_value() ? pending_->gradients : gradients_;
  const NamedProducts& products =
      pending_.has_value() ? pending_->products : products_;
  const auto gradient = gradients.find(fqn);
  if (gradient != gradients.end()) return gradient->second;
  const auto product = products.find(fqn);
  return product == products.end() ? at::Tensor() : product->second.Made();
}

}  // namespace shardplane
