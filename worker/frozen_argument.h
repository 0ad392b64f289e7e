// Constant arguments of a program as the IValues that an operator's schema
// asks for.
#ifndef SHARDPLANE_WORKER_FROZEN_ARGUMENT_H_
#define SHARDPLANE_WORKER_FROZEN_ARGUMENT_H_

#include <optional>

#include "ATen/core/function_schema.h"
#include "ATen/core/ivalue.h"
#include "common/sharded_program.h"
#include "worker/operators.h"

namespace shardplane {

// `argument` (no value in it) as a `schema.real_type()`: 1 as a float is 1.0,
// 3 as an int[2] is [3, 3], a LocalSize this rank's size, a LocalOffset where
// its part begins, "strided" a layout, any device the context's, a number for a
// tensor a 0-dim one that does not take part in type promotion. nullopt: not
// possible.
std::optional<c10::IValue> FreezeArgument(const ProgramArgument& argument,
                                          const c10::Argument& schema,
                                          const OperatorContext& context);

// What an argument that is left out gets: the schema's default, and for a
// device the context's. nullopt: it has none.
std::optional<c10::IValue> DefaultArgument(const c10::Argument& schema,
                                           const OperatorContext& context);

// The type under any number of Optionals.
const c10::Type& WithoutOptional(const c10::Type& type);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_FROZEN_ARGUMENT_H_
