#include "worker/shm/shm_call_parts.h"

#include <string>
#include <utility>

#include "worker/shm/reductions.h"

namespace shardplane {

using c10d::OpType;

void CheckBuffer(const at::Tensor& tensor) {
  SHM_CHECK(tensor.defined(), "a tensor", "an undefined one");
  SHM_CHECK(tensor.device().is_cpu(), "a tensor on the CPU", tensor.device());
  SHM_CHECK(tensor.layout() == at::kStrided && tensor.is_contiguous() &&
                !tensor.is_conj() && !tensor.is_neg(),
            "a dense, contiguous tensor", "another layout");
}

void CheckType(const at::Tensor& tensor, const at::Tensor& other) {
  SHM_CHECK(tensor.scalar_type() == other.scalar_type(),
            "tensors of one element type", tensor.scalar_type());
}

void CheckElements(const char* what, int64_t expected,
                   const at::Tensor& tensor) {
  SHM_CHECK(tensor.numel() == expected,
            c10::str(what, " of ", expected, " elements"), tensor.numel());
}

ShmReducer ReducerFor(const at::Tensor& tensor, const c10d::ReduceOp& op) {
  using Op = c10d::ReduceOp;
  static_assert(static_cast<int>(ShmReduction::kSum) == Op::SUM &&
                static_cast<int>(ShmReduction::kAvg) == Op::AVG &&
                static_cast<int>(ShmReduction::kProduct) == Op::PRODUCT &&
                static_cast<int>(ShmReduction::kMin) == Op::MIN &&
                static_cast<int>(ShmReduction::kMax) == Op::MAX &&
                static_cast<int>(ShmReduction::kBand) == Op::BAND &&
                static_cast<int>(ShmReduction::kBor) == Op::BOR &&
                static_cast<int>(ShmReduction::kBxor) == Op::BXOR);
  SHM_CHECK(op.op_ <= Op::BXOR, "a reduction of CPUs",
            static_cast<int>(op.op_));
  const absl::StatusOr<ShmReducer> reducer =
      ReducerOf(tensor.scalar_type(), static_cast<ShmReduction>(op.op_));
  TORCH_CHECK_VALUE(reducer.ok(), std::string(reducer.status().message()));
  return *reducer;
}

ShmTransfer AllGatherTransfer(ShmTargets targets, const at::Tensor& input) {
  const int64_t longest = Longest(targets);
  const uint64_t signature = Signature(OpType::ALLGATHER, input.scalar_type())
                                 .AddSizes(targets)
                                 .hash();
  return {.kind = ShmKind::kShare,
          .sources = {SourceOf(input)},
          .targets = std::move(targets),
          .reducer = {},
          .longest = longest,
          .signature = signature};
}

ShmTransfer ReduceScatterTransfer(const at::Tensor& output, ShmSources sources,
                                  const c10d::ReduceOp& op) {
  const int64_t longest = Longest(sources);
  const uint64_t signature =
      Signature(OpType::REDUCE_SCATTER, output.scalar_type())
          .AddSizes(sources)
          .hash();
  return {.kind = ShmKind::kExchangeReduce,
          .sources = std::move(sources),
          .targets = {TargetOf(output)},
          .reducer = ReducerFor(output, op),
          .longest = longest,
          .signature = signature};
}

}  // namespace shardplane
