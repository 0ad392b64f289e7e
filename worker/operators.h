// One operator of a program, ready to be called: looked up in LibTorch's
// dispatcher once, its constant arguments frozen.
#ifndef SHARDPLANE_WORKER_OPERATORS_H_
#define SHARDPLANE_WORKER_OPERATORS_H_

#include <string>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/core/dispatch/Dispatcher.h"
#include "ATen/core/ivalue.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "c10/core/Device.h"
#include "common/device_mesh.h"
#include "common/sharded_program.h"
#include "worker/id_arguments.h"
#include "worker/nvtx_range.h"

namespace shardplane {

// What programs are prepared for: this rank of this mesh, this device.
struct OperatorContext {
  const DeviceMesh* mesh = nullptr;
  std::vector<int> coordinate;
  c10::Device device = c10::Device(c10::kCPU);
  NvtxDomain* nvtx = nullptr;  // where runs are shown; null: nowhere
};

// Where a value of a program lies in a segment's frame.
using Slot = int;
inline constexpr Slot kNoSlot = -1;  // None in a list of tensors

class PreparedOp {
 public:
  // `slot_of` tells where a value lies; kNoSlot: nowhere, an error. NotFound:
  // no such operator. InvalidArgument: an argument that its schema does not
  // take, a required one that is missing. Both name FQN and operator.
  static absl::StatusOr<PreparedOp> Create(
      const Op& op, const OperatorContext& context,
      absl::FunctionRef<Slot(ValueId)> slot_of);

  // Calls the operator on the frame's tensors; stores its results there, a
  // list's elements one by one. Throws what torch throws, with FQN and
  // operator added.
  void Call(absl::Span<at::Tensor> frame) const;

  const std::vector<Slot>& inputs() const { return inputs_; }

  // Slots that nothing reads after this op; the segment fills it.
  std::vector<Slot> last_uses;
  // Where the results go, in order; kNoSlot: dropped.
  std::vector<Slot> results;

 private:
  struct TensorArgument {
    Slot slot = kNoSlot;
  };
  struct TensorListArgument {
    std::vector<Slot> slots;
    bool optional_elements = false;
  };
  using ArgumentTemplate =
      std::variant<c10::IValue, TensorArgument, TensorListArgument>;

  PreparedOp(c10::OperatorHandle handle, std::string name)
      : handle_(std::move(handle)), name_(std::move(name)) {}

  absl::Status AddArguments(const Op& op, const OperatorContext& context,
                            absl::FunctionRef<Slot(ValueId)> slot_of);
  // Where an item of an argument lies, and that the op reads it.
  absl::StatusOr<Slot> Read(const ProgramArgument& item,
                            const c10::Argument& schema,
                            absl::FunctionRef<Slot(ValueId)> slot_of);
  absl::StatusOr<TensorListArgument> FreezeTensors(
      const std::vector<const ProgramArgument*>& items,
      const c10::Argument& schema, absl::FunctionRef<Slot(ValueId)> slot_of);
  absl::StatusOr<ArgumentTemplate> Freeze(
      const ProgramArgument& argument, const c10::Argument& schema,
      const OperatorContext& context, absl::FunctionRef<Slot(ValueId)> slot_of);
  static c10::IValue Gather(const TensorListArgument& list,
                            absl::Span<const at::Tensor> frame);
  void StoreResults(const std::vector<c10::IValue>& stack,
                    absl::Span<at::Tensor> frame) const;

  c10::OperatorHandle handle_;
  CheckIdArguments check_ids_ = nullptr;
  std::string name_;  // "aten.linear.default in net1", for errors
  std::vector<ArgumentTemplate> arguments_;
  std::vector<Slot> inputs_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_WORKER_OPERATORS_H_
