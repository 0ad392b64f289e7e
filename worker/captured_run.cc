#include "worker/captured_run.h"

#include <chrono>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "absl/algorithm/container.h"
#include "absl/time/clock.h"
#include "common/errors.h"
#include "worker/torch_status.h"
#include "worker/torch_tensors.h"

namespace shardplane {
namespace {

// Before the capture: kernels are loaded, workspaces made and ranks connected
// by then.
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

CapturedRun::CapturedRun(std::shared_ptr<const PreparedProgram> program,
                         absl::Span<const int> coordinate,
                         MakeDeviceGraph make_graph,
                         std::function<void(const absl::Status&)> on_capture)
    : program_(std::move(program)),
      make_graph_(std::move(make_graph)),
      on_capture_(std::move(on_capture)),
      communicates_(
          !Collectives(program_->program(), Phase::kForward, coordinate)
               .empty() ||
          !Collectives(program_->program(), Phase::kBackward, coordinate)
               .empty()) {}

bool CapturedRun::IsOf(absl::Span<const at::Tensor> parameters) const {
  return absl::c_equal(parameters, parameters_,
                       [](const at::Tensor& a, const at::Tensor& b) {
                         return a.const_data_ptr() == b.const_data_ptr();
                       });
}

bool CapturedRun::MayCapture(const Communicator& communicator) const {
  return graph_ == nullptr && !failed_ && committed_ >= kOpenRuns &&
         (!communicates_ || communicator.MayBeRecorded());
}

void CapturedRun::Drop() {
  graph_.reset();
  recorded_ = {};
  checks_ = {};
  result_ = ProgramResult();
  inputs_.clear();
  parameters_.clear();
}

void CapturedRun::LeaveGroups() {
  if (!communicates_) return;
  Drop();
  committed_ = 0;
  failed_ = false;
}

absl::Status CapturedRun::Record(DeviceGraph& graph,
                                 Communicator& communicator) {
  return CatchTorch("capturing a run", [&]() -> absl::Status {
    graph.Capture([this, &communicator]() -> std::vector<at::Tensor> {
      std::vector<at::Tensor> made;
      Communicator::Recorded recorded = communicator.RecordCalls([&] {
        absl::StatusOr<ProgramResult> result =
            program_->Run(RunMode::kTrain, parameters_, inputs_, communicator,
                          {.words = random_}, nullptr,
                          /*keep_products=*/false, &checks_);
        TORCH_CHECK(result.ok(), result.status().ToString());
        made = TensorsOf(*result);
        if (graph_ == nullptr) result_ = *std::move(result);
      });
      if (graph_ == nullptr) recorded_ = std::move(recorded);
      return made;
    });
    return absl::OkStatus();
  });
}

absl::Status CapturedRun::Capture(absl::Span<const at::Tensor> parameters,
                                  absl::Span<const at::Tensor> inputs,
                                  Communicator& communicator) {
  parameters_.assign(parameters.begin(), parameters.end());
  for (const at::Tensor& input : inputs) inputs_.push_back(input.clone());
  random_ = CopyTo(WordsOf({}), communicator.device());
  std::unique_ptr<DeviceGraph> graph = make_graph_();
  absl::Status status = Record(*graph, communicator);
  absl::StatusOr<bool> all = status.ok();
  if (communicates_) {
    communicator.CountAside([&] { all = communicator.AllAgree(status.ok()); });
  }
  if (all.ok() && *all) {
    graph_ = std::move(graph);
  } else {
    graph.reset();
    Drop();
  }
  SP_RETURN_IF_ERROR(all.status());
  failed_ = !*all;
  if (status.ok() && failed_) {
    status = absl::FailedPreconditionError("capturing a run: a peer could not");
  }
  on_capture_(status);
  return absl::OkStatus();
}

absl::Status CapturedRun::Begin(absl::Span<const at::Tensor> inputs,
                                const RandomCounter& random,
                                Communicator& communicator,
                                RunTimeline* timeline) {
  const auto start = std::chrono::steady_clock::now();
  if (timeline != nullptr) timeline->begin_unix = absl::GetCurrentTimeNanos();
  for (size_t i = 0; i < inputs.size(); ++i) inputs_[i].copy_(inputs[i]);
  if (program_->program().random >= 0) {
    random_.copy_(CopyTo(WordsOf(random), random_.device()));
  }
  SP_RETURN_IF_ERROR(
      communicator.Replay(recorded_, [this] { graph_->Replay(); }));
  if (timeline == nullptr) return absl::OkStatus();
  const std::chrono::nanoseconds begun =
      std::chrono::steady_clock::now() - start;
  timeline->spans.push_back({0, 0, begun.count()});
  return absl::OkStatus();
}

absl::StatusOr<ProgramResult> CapturedRun::Run(
    absl::Span<const at::Tensor> parameters,
    absl::Span<const at::Tensor> inputs, const RandomCounter& random,
    Communicator& communicator, RunTimeline* timeline) {
  const at::AutoGradMode no_grad(false);
  if (graph_ != nullptr && !IsOf(parameters)) Drop();
  if (MayCapture(communicator)) {
    SP_RETURN_IF_ERROR(Capture(parameters, inputs, communicator));
  }
  if (graph_ == nullptr) {
    return program_->Run(RunMode::kTrain, parameters, inputs, communicator,
                         random, timeline);
  }
  SP_RETURN_IF_ERROR(Begin(inputs, random, communicator, timeline));
  // Before anything is read: who reads waits for its peers without an end.
  SP_RETURN_IF_ERROR(communicator.Finish());
  SP_RETURN_IF_ERROR(MakeChecks(checks_));
  return result_;
}

}  // namespace shardplane
