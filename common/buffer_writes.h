// Calls that change buffers, and what their readers see afterwards. Used by
// compile.cc.
#ifndef SHARDPLANE_COMMON_BUFFER_WRITES_H_
#define SHARDPLANE_COMMON_BUFFER_WRITES_H_

#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "common/op_emitter.h"
#include "common/style_layouts.h"

namespace shardplane {

// A graph names a buffer by its stored value, whenever it reads it: reads after
// a write get what was written. Programs change nothing in place; what was
// written last becomes the buffer when the step is accepted.
class BufferWrites {
 public:
  explicit BufferWrites(OpEmitter* emitter) : emitter_(emitter) {}

  void AddBuffer(ValueId stored) { newest_.try_emplace(stored, stored); }

  // With buffers as they are now.
  Flow Newest(Flow flow) const;
  // A call whose arguments name buffers by their stored values. aten.copy_ onto
  // a buffer gives the buffer; aten.batch_norm in training mode writes its
  // running statistics. Everything else is the emitter's. InvalidArgument: a
  // write to what is no buffer.
  absl::StatusOr<std::vector<ValueId>> Emit(ValueCall call);
  // Tells the builder; once, when all calls are emitted.
  void Finish();

 private:
  Argument Newest(const Argument& argument) const;
  ValueCall Newest(ValueCall call) const;
  absl::StatusOr<ValueId> BufferOf(const ValueCall& call,
                                   const Argument* argument) const;
  absl::StatusOr<std::vector<ValueId>> Copy(const ValueCall& call);
  absl::Status UpdateStatistics(const ValueCall& call);
  // running * (1 - momentum) + now * momentum
  absl::Status Blend(const ValueCall& call, int index, ValueId now,
                     double momentum);
  absl::Status Write(ValueId stored, const ValueCall& like, ValueId value);
  absl::StatusOr<std::vector<ValueId>> EmitAs(const ValueCall& like,
                                              const char* target,
                                              std::vector<Argument> args);

  OpEmitter* emitter_;
  absl::btree_map<ValueId, ValueId> newest_;  // by stored value
  bool written_ = false;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_BUFFER_WRITES_H_
