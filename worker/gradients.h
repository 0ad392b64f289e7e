// Gradients of parameters, made or not.
#ifndef SHARDPLANE_WORKER_GRADIENTS_H_
#define SHARDPLANE_WORKER_GRADIENTS_H_

#include <string>

#include "ATen/core/Tensor.h"
#include "absl/container/btree_map.h"

namespace shardplane {

using NamedTensors = absl::btree_map<std::string, at::Tensor>;  // by FQN

// The gradient of a linear op's weight, as what it is the product of. Methods
// throw what torch throws.
struct WeightProduct {
  at::Tensor input;     // [..., in], what the op got
  at::Tensor gradient;  // [..., out], of what the op gave

  // [out, in]: bit for bit what autograd makes of rows that lie in one run.
  at::Tensor Made() const;
  // weight = scale * weight + factor * Made(), in place, without making it.
  void AddTo(const at::Tensor& weight, double scale, double factor) const;
};
using NamedProducts = absl::btree_map<std::string, WeightProduct>;  // by FQN

// Makes them all.
void MakeProducts(NamedProducts& products, NamedTensors& gradients);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_GRADIENTS_H_
