#include "worker/captured_run.h"

#include <chrono>
#include <utility>

#include "ATen/ATen.h"
#include "absl/algorithm/container.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "worker/torch_status.h"

namespace shardplane {
namespace {

// Before the capture: kernels are loaded and workspaces made by then.
constexpr int kOpenRuns = 2;

std::vector<at::Tensor> TensorsOf(const ProgramResult& result) {
  std::vector<at::Tensor> tensors = result.outputs;
  tensors.push_back(result.loss);
  for (const auto& [fqn, gradient] : result.gradients) {
    tensors.push_back(gradient);
  }
  for (const auto& [fqn, update] : result.updates) tensors.push_back(update);
  tensors.insert(tensors.end(), result.input_gradients.begin(),
                 result.input_gradients.end());
  return tensors;
}

}  // namespace

bool CapturedRun::Fits(const ShardedProgram& program,
                       absl::Span<const int> coordinate) {
  return program.loss >= 0 &&
         Collectives(program, Phase::kForward, coordinate).empty() &&
         Collectives(program, Phase::kBackward, coordinate).empty();
}

bool CapturedRun::IsOf(absl::Span<const at::Tensor> parameters) const {
  return absl::c_equal(parameters, parameters_,
                       [](const at::Tensor& a, const at::Tensor& b) {
                         return a.const_data_ptr() == b.const_data_ptr();
                       });
}

void CapturedRun::Drop() {
  graph_.reset();
  checks_.clear();
  result_ = ProgramResult();
  inputs_.clear();
  parameters_.clear();
}

void CapturedRun::Capture(absl::Span<const at::Tensor> parameters,
                          absl::Span<const at::Tensor> inputs,
                          Communicator& communicator) {
  parameters_.assign(parameters.begin(), parameters.end());
  for (const at::Tensor& input : inputs) inputs_.push_back(input.clone());
  random_ = WordsOf({}).to(communicator.device());
  const absl::Status status =
      CatchTorch("capturing a run", [&]() -> absl::Status {
        std::unique_ptr<DeviceGraph> graph = make_graph_();
        graph->Capture([this, &communicator]() -> std::vector<at::Tensor> {
          absl::StatusOr<ProgramResult> result =
              program_->Run(RunMode::kTrain, parameters_, inputs_, communicator,
                            {.words = random_}, nullptr,
                            /*keep_products=*/false, &checks_);
          TORCH_CHECK(result.ok(), result.status().ToString());
          if (graph_ == nullptr) result_ = *result;
          return TensorsOf(*result);
        });
        graph_ = std::move(graph);
        return absl::OkStatus();
      });
  failed_ = !status.ok();
  if (failed_) Drop();
  on_capture_(status);
}

void CapturedRun::Begin(absl::Span<const at::Tensor> inputs,
                        const RandomCounter& random, RunTimeline* timeline) {
  const auto start = std::chrono::steady_clock::now();
  if (timeline != nullptr) timeline->begin_unix = absl::GetCurrentTimeNanos();
  for (size_t i = 0; i < inputs.size(); ++i) inputs_[i].copy_(inputs[i]);
  if (program_->program().random >= 0) random_.copy_(WordsOf(random));
  graph_->Replay();
  if (timeline == nullptr) return;
  const std::chrono::nanoseconds begun =
      std::chrono::steady_clock::now() - start;
  timeline->spans.push_back({0, 0, begun.count()});
}

absl::StatusOr<ProgramResult> CapturedRun::Run(
    absl::Span<const at::Tensor> parameters,
    absl::Span<const at::Tensor> inputs, const RandomCounter& random,
    Communicator& communicator, RunTimeline* timeline) {
  const at::AutoGradMode no_grad(false);
  if (graph_ != nullptr && !IsOf(parameters)) Drop();
  const bool may_capture =
      graph_ == nullptr && !failed_ && open_runs_ >= kOpenRuns;
  if (may_capture) Capture(parameters, inputs, communicator);
  if (graph_ == nullptr) {
    ++open_runs_;
    return program_->Run(RunMode::kTrain, parameters, inputs, communicator,
                         random, timeline);
  }
  Begin(inputs, random, timeline);
  SP_RETURN_IF_ERROR(MakeChecks(checks_));
  return result_;
}

}  // namespace shardplane
