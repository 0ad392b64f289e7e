// Operators of our own as programs reach them: by name, through LibTorch's
// dispatcher.
#ifndef SHARDPLANE_WORKER_OPERATOR_FOR_TEST_H_
#define SHARDPLANE_WORKER_OPERATOR_FOR_TEST_H_

#include "ATen/core/dispatch/Dispatcher.h"
#include "worker/sharded_operators.h"

namespace shardplane {

// Its handle: Operator("shardplane::dropout", &CounterDropout).call(x, ...).
template <typename Signature>
auto Operator(const char* name, Signature*) {
  RegisterShardedOperators();
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .typed<Signature>();
}

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_OPERATOR_FOR_TEST_H_
