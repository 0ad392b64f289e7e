#include "worker/graph_walk.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "absl/container/flat_hash_map.h"
#include "torch/csrc/autograd/engine.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/grad_mode.h"
#include "torch/csrc/autograd/variable.h"

namespace shardplane {
namespace {

using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;

// Whether nobody else sees what is written to it.
bool IsOurs(const at::Tensor& tensor) {
  return tensor.use_count() == 1 && tensor.has_storage() &&
         tensor.storage().use_count() == 1 &&
         tensor.is_non_overlapping_and_dense();
}

// Where a graph begins: what reaches it goes no further.
class Beginning : public Node {
 public:
  variable_list apply(variable_list&&) override { return {}; }
};

// A node is made after the nodes that its gradients go to, and numbers rise in
// the order of making. So the highest number that any gradient has reached is
// that of a node whose gradients are complete, and the order is the engine's:
// sums of gradients add up alike.
class Walk {
 public:
  explicit Walk(absl::Span<const Edge> inputs);

  // The gradients of the outputs, which lead to these edges.
  void Start(const edge_list& edges, variable_list gradients);
  void Run();
  // By input.
  std::vector<at::Tensor> TakeResults() { return std::move(results_); }

 private:
  struct Ready {
    uint64_t number;
    Node* node;
    bool operator<(const Ready& other) const { return number < other.number; }
  };
  struct Wanted {
    uint32_t place = 0;  // among the node's inputs
    size_t result = 0;
  };

  void Add(const Edge& edge, at::Tensor gradient);
  void AddToResults(const Edge& edge, at::Tensor gradient);
  void Call(Node& node, variable_list gradients);

  std::vector<at::Tensor> results_;
  absl::flat_hash_map<const Node*, std::vector<Wanted>> wanted_;
  // What has reached a node, by the place among its inputs.
  absl::flat_hash_map<Node*, variable_list> reached_;
  std::vector<Ready> ready_;  // a heap
};

Walk::Walk(absl::Span<const Edge> inputs) : results_(inputs.size()) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    wanted_[inputs[i].function.get()].push_back({inputs[i].input_nr, i});
  }
}

// Of an edge where the graph begins, at a leaf or a Beginning.
void Walk::AddToResults(const Edge& edge, at::Tensor gradient) {
  const auto wanted = wanted_.find(edge.function.get());
  if (wanted == wanted_.end()) return;
  for (const auto& [place, result] : wanted->second) {
    if (place == edge.input_nr) AddGradient(gradient, results_[result]);
  }
}

void Walk::Add(const Edge& edge, at::Tensor gradient) {
  if (!edge.is_valid() || !gradient.defined()) return;
  Node* const node = edge.function.get();
  if (node->next_edges().empty()) {
    return AddToResults(edge, std::move(gradient));
  }
  const auto [reached, first] = reached_.try_emplace(node);
  if (first) {
    reached->second.resize(node->num_inputs());
    ready_.push_back({node->sequence_nr(), node});
    std::push_heap(ready_.begin(), ready_.end());
  }
  AddGradient(std::move(gradient), reached->second[edge.input_nr]);
}

void Walk::Start(const edge_list& edges, variable_list gradients) {
  torch::autograd::validate_outputs(
      edges, gradients,
      [](const std::string& what) { return "a graph's outputs: " + what; });
  for (size_t i = 0; i < edges.size(); ++i) {
    Add(edges[i], std::move(gradients[i]));
  }
}

void Walk::Call(Node& node, variable_list gradients) {
  node.will_release_variables();
  variable_list results = node(std::move(gradients));
  node.release_variables();
  const edge_list& edges = node.next_edges();
  TORCH_CHECK(results.size() >= edges.size(), node.name(), ": expected ",
              edges.size(), " gradients, got: ", results.size());
  results.resize(edges.size());
  // Broadcast gradients are summed to their input's shape here: derivative
  // formulas leave that to their caller.
  torch::autograd::validate_outputs(
      edges, results,
      [&](const std::string& what) { return node.name() + ": " + what; });
  for (size_t i = 0; i < edges.size(); ++i) {
    Add(edges[i], std::move(results[i]));
  }
}

void Walk::Run() {
  while (!ready_.empty()) {
    std::pop_heap(ready_.begin(), ready_.end());
    Node* const node = ready_.back().node;
    ready_.pop_back();
    const auto reached = reached_.find(node);
    variable_list gradients = std::move(reached->second);
    reached_.erase(reached);
    const auto wanted = wanted_.find(node);
    if (wanted != wanted_.end()) {
      for (const auto& [place, result] : wanted->second) {
        results_[result] = gradients[place];
      }
    }
    Call(*node, std::move(gradients));
  }
}

}  // namespace

void AddGradient(at::Tensor gradient, at::Tensor& sum) {
  if (!sum.defined()) {
    sum = std::move(gradient);
  } else if (IsOurs(sum)) {
    sum.add_(gradient);
  } else {
    sum = sum.add(gradient);
  }
}

Edge EdgeOf(const at::Tensor& tensor) {
  return tensor.requires_grad() ? torch::autograd::impl::gradient_edge(tensor)
                                : Edge();
}

Edge BeginGraph(const at::Tensor& input) {
  auto node = std::make_shared<Beginning>();
  const uint32_t place = node->add_input_metadata(input);
  Edge edge(std::move(node), place);
  torch::autograd::impl::set_gradient_edge(input, edge);
  return edge;
}

std::vector<at::Tensor> WalkGraph(absl::Span<const Edge> outputs,
                                  absl::Span<const at::Tensor> gradients,
                                  absl::Span<const Edge> inputs) {
  if (!std::all_of(gradients.begin(), gradients.end(),
                   [](const at::Tensor& g) { return g.is_cpu(); })) {
    return torch::autograd::Engine::get_default_engine().execute(
        {outputs.begin(), outputs.end()}, {gradients.begin(), gradients.end()},
        /*keep_graph=*/false, /*create_graph=*/false,
        /*accumulate_grad=*/false, {inputs.begin(), inputs.end()});
  }
  const at::AutoGradMode no_grad(false);
  Walk walk(inputs);
  walk.Start({outputs.begin(), outputs.end()},
             {gradients.begin(), gradients.end()});
  walk.Run();
  return walk.TakeResults();
}

}  // namespace shardplane
