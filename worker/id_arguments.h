// Operators of LibTorch that are given ids, or a count of them, which their
// kernels only assert.
#ifndef SHARDPLANE_WORKER_ID_ARGUMENTS_H_
#define SHARDPLANE_WORKER_ID_ARGUMENTS_H_

#include <vector>

#include "ATen/core/ivalue.h"
#include "absl/strings/string_view.h"

namespace shardplane {

// Puts checked ids (worker/class_ids) in the place of those among an operator's
// arguments, all of which its schema has: a bad one would end the GPU's context
// with all that lies there, and on a CPU this rank's collectives alone. Throws
// c10::IndexError as CheckedIds does. Ids whose shape or type the operator does
// not take are left to it.
using CheckIdArguments = void (*)(std::vector<c10::IValue>& arguments);

// Of "aten.gather.default"; nullptr: it is given none.
CheckIdArguments FindIdArguments(absl::string_view target);

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_ID_ARGUMENTS_H_
