// The backward pass of a graph that LibTorch has recorded.
#ifndef SHARDPLANE_WORKER_GRAPH_WALK_H_
#define SHARDPLANE_WORKER_GRAPH_WALK_H_

#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/types/span.h"

namespace shardplane {

// What torch::autograd::grad(outputs, inputs, gradients, retain_graph=false,
// create_graph=false, allow_unused=true) returns, bit for bit: the gradient of
// each input, undefined where nothing reaches it. Calls the graph's nodes
// itself, on this thread: the engine's bookkeeping costs small operators as
// much as their kernels do. Hooks are not called.
//
// `inputs` are all leaves of the graph. `outputs` ask for a gradient, and
// `gradients`, one each, are defined. Tensors on other devices than the CPU are
// left to the engine, which keeps their streams in order. Ends the graph.
// Throws what torch throws.
std::vector<at::Tensor> WalkGraph(absl::Span<const at::Tensor> outputs,
                                  absl::Span<const at::Tensor> gradients,
                                  absl::Span<const at::Tensor> inputs);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GRAPH_WALK_H_
