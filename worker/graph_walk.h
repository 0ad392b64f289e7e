// The backward pass of a graph that LibTorch has recorded.
#ifndef SHARDPLANE_WORKER_GRAPH_WALK_H_
#define SHARDPLANE_WORKER_GRAPH_WALK_H_

#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"
#include "torch/csrc/autograd/edge.h"

namespace shardplane {

// A tensor's place in the graph, without the tensor: its memory is not held.
// Invalid if the tensor asks for no gradient.
torch::autograd::Edge EdgeOf(const at::Tensor& tensor);

// Makes a detached tensor an input of a graph that is to be recorded: it asks
// for a gradient, which reaches the edge. As a leaf does, whose node would hold
// its memory.
torch::autograd::Edge BeginGraph(const at::Tensor& input);

// sum += gradient, in place where nobody sees it; an undefined sum is zero.
void AddGradient(at::Tensor gradient, at::Tensor& sum);

// What torch::autograd::grad(outputs, inputs, gradients, retain_graph=false,
// create_graph=false, allow_unused=true) returns, bit for bit: the gradient of
// each input, undefined where nothing reaches it. Calls the graph's nodes
// itself, on this thread: the engine's bookkeeping costs small operators as
// much as their kernels do. Hooks are not called, and leaves that are no inputs
// get nothing.
//
// `inputs` may be any of the graph's; `gradients`, one an output, are defined.
// Those on other devices than the CPU are left to the engine, which keeps their
// streams in order. Ends the graph. Throws what torch throws.
std::vector<at::Tensor> WalkGraph(
    absl::Span<const torch::autograd::Edge> outputs,
    absl::Span<const at::Tensor> gradients,
    absl::Span<const torch::autograd::Edge> inputs);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GRAPH_WALK_H_
