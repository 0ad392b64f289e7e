#include "bench/op_cost.h"

#include <time.h>

#include <algorithm>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/add.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/eye.h"
#include "ATen/ops/layer_norm.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/ones_like.h"
#include "ATen/ops/relu.h"
#include "ATen/ops/zeros.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/device_mesh.h"
#include "common/errors.h"
#include "torch/csrc/autograd/autograd.h"
#include "torch/csrc/autograd/grad_mode.h"
#include "worker/operators.h"
#include "worker/segments.h"

namespace shardplane {
namespace {

using Tensors = absl::Span<const at::Tensor>;

ProgramArgument Ref(ValueId id) { return {ValueRef{id}}; }

ProgramArgument Ints(const std::vector<int64_t>& ints) {
  ProgramArgumentList list;
  for (const int64_t i : ints) list.push_back({i});
  return {list};
}

// kOpsPerSegment times `op`, whose first argument is what the one before made,
// and kOpsPerSegment times `call` on the same.
template <typename Call>
OpChain Chain(std::string name, std::vector<at::Tensor> inputs, Op op,
              Call call) {
  OpChain chain{.name = std::move(name), .inputs = std::move(inputs)};
  const int extra = static_cast<int>(chain.inputs.size());
  Segment& segment = chain.segment;
  for (ValueId id = 0; id < extra; ++id) {
    segment.inputs.push_back(id);
    segment.differentiable_inputs.push_back(id);
  }
  // Inner values lie behind the output.
  ValueId last = 0;
  for (int i = 0; i < kOpsPerSegment; ++i) {
    const ValueId result = i + 1 == kOpsPerSegment ? extra : extra + 1 + i;
    const auto redirect = [last](ProgramArgument& argument) {
      auto* ref = std::get_if<ValueRef>(&argument.value);
      if (ref != nullptr && ref->id == 0) ref->id = last;
    };
    Op next = op;
    for (ProgramArgument& argument : next.args) {
      redirect(argument);
      auto* list = std::get_if<ProgramArgumentList>(&argument.value);
      if (list == nullptr) continue;
      for (ProgramArgument& item : *list) redirect(item);
    }
    next.results = {result};
    segment.ops.push_back(std::move(next));
    last = result;
  }
  segment.outputs = {extra};
  segment.differentiable_outputs = {extra};
  chain.direct = [call](Tensors in) {
    at::Tensor x = in[0];
    for (int i = 0; i < kOpsPerSegment; ++i) x = call(x, in);
    return x;
  };
  return chain;
}

// One side: what a round times.
struct Side {
  std::function<at::Tensor()> run;  // the output, and gradients are made
  std::vector<double>* nanoseconds;
};

double ThreadNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 +
         static_cast<double>(now.tv_nsec);
}

double NanosecondsPerOp(const Side& side) {
  const double start = ThreadNanoseconds();
  side.run();
  return (ThreadNanoseconds() - start) / kOpsPerSegment;
}

at::Tensor RunDirect(const OpChain& chain, OpCostMode mode,
                     const at::Tensor& seed) {
  const bool record = mode != OpCostMode::kForward;
  const at::AutoGradMode grad_mode(record);
  std::vector<at::Tensor> inputs = chain.inputs;
  if (record) {
    for (at::Tensor& input : inputs) {
      input = input.detach().requires_grad_(true);
    }
  }
  const at::Tensor output = chain.direct(inputs);
  if (mode == OpCostMode::kTrain) {
    torch::autograd::grad({output}, inputs, {seed});
  }
  return record ? output.detach() : output;
}

at::Tensor RunExecutor(const PreparedSegment& segment, const OpChain& chain,
                       OpCostMode mode, const at::Tensor& seed) {
  std::vector<at::Tensor> values = chain.inputs;
  values.resize(chain.inputs.size() + kOpsPerSegment);
  SegmentRecording recording = segment.Forward(
      absl::MakeSpan(values),
      mode == OpCostMode::kForward ? Recording::kOff : Recording::kOn);
  if (mode == OpCostMode::kTrain) {
    segment.Backward(recording, {&seed, 1});
  }
  return values[chain.inputs.size()];
}

}  // namespace

const char* ToString(OpCostMode mode) {
  switch (mode) {
    case OpCostMode::kForward:
      return "forward";
    case OpCostMode::kRecorded:
      return "recorded";
    case OpCostMode::kTrain:
      return "train";
  }
  return "";
}

std::vector<OpChain> OpChains() {
  const at::Tensor x = at::arange(16, at::kFloat).view({4, 4}) / 16;
  const at::Tensor w = at::eye(4);
  const at::Tensor b = at::zeros({4});
  std::vector<OpChain> chains;
  chains.push_back(Chain(
      "add", {x, x}, {.target = "aten.add.Tensor", .args = {Ref(0), Ref(1)}},
      [](const at::Tensor& t, Tensors in) { return at::add(t, in[1]); }));
  chains.push_back(
      Chain("relu", {x}, {.target = "aten.relu.default", .args = {Ref(0)}},
            [](const at::Tensor& t, Tensors) { return at::relu(t); }));
  chains.push_back(
      Chain("linear", {x, w, b},
            {.target = "aten.linear.default", .args = {Ref(0), Ref(1), Ref(2)}},
            [](const at::Tensor& t, Tensors in) {
              return at::linear(t, in[1], in[2]);
            }));
  chains.push_back(
      Chain("view", {x},
            {.target = "aten.view.default", .args = {Ref(0), Ints({2, 2, 4})}},
            [](const at::Tensor& t, Tensors) {
              return t.view({2, 2, 4});
            }));
  chains.push_back(Chain("layer_norm", {x, b, b},
                         {.target = "aten.layer_norm.default",
                          .args = {Ref(0), Ints({4}), Ref(1), Ref(2)}},
                         [](const at::Tensor& t, Tensors in) {
                           return at::layer_norm(t, {4}, in[1], in[2]);
                         }));
  // Of no rows and the value: as long as before.
  chains.push_back(
      Chain("cat", {x, x.narrow(0, 0, 0)},
            {.target = "aten.cat.default",
             .args = {{ProgramArgumentList{Ref(0), Ref(1)}}, {int64_t{0}}}},
            [](const at::Tensor& t, Tensors in) {
              return at::cat({t, in[1]}, 0);
            }));
  return chains;
}

absl::StatusOr<OpCost> MeasureOpCost(const OpChain& chain, OpCostMode mode,
                                     int rounds) {
  const DeviceMesh mesh = *DeviceMesh::Create({{"tp", 1}});
  SP_ASSIGN_OR_RETURN(const PreparedSegment segment,
                      PreparedSegment::Create(
                          chain.segment, {.mesh = &mesh, .coordinate = {0}}));
  OpCost cost;
  // Both warm up here, and have the same to say.
  const at::Tensor expected = RunDirect(chain, OpCostMode::kForward, {});
  const at::Tensor seed = at::ones_like(expected);
  if (!RunExecutor(segment, chain, mode, seed)
           .equal(RunDirect(chain, mode, seed))) {
    return absl::InternalError(
        absl::StrCat(chain.name, ": expected the values of direct calls"));
  }
  std::vector<Side> sides{
      {[&] { return RunExecutor(segment, chain, mode, seed); }, &cost.executor},
      {[&] { return RunDirect(chain, mode, seed); }, &cost.direct}};
  for (int round = 0; round < rounds; ++round) {
    for (const Side& side : sides) {
      side.nanoseconds->push_back(NanosecondsPerOp(side));
    }
    cost.difference.push_back(cost.executor.back() - cost.direct.back());
    std::swap(sides[0], sides[1]);
  }
  return cost;
}

double Quantile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  const double at = fraction * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, values.size() - 1);
  const double weight = at - static_cast<double>(below);
  return values[below] * (1 - weight) + values[above] * weight;
}

}  // namespace shardplane
