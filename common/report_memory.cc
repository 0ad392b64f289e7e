#include "common/report_memory.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/types/span.h"

namespace shardplane {
namespace {

int64_t LocalBytes(const TensorType& type, const DTensorSpec& spec,
                   const DeviceMesh& mesh, absl::Span<const int> coordinate) {
  return NumElements(LocalShape(type.shape, spec, mesh, coordinate)) *
         ByteSize(type.dtype);
}

// Runs a program's instructions on sizes alone.
class ActivationMeter {
 public:
  ActivationMeter(const ShardedProgram& program,
                  absl::Span<const int> coordinate)
      : program_(program), bytes_(program.values.size()) {
    for (size_t i = 0; i < bytes_.size(); ++i) {
      const Value& value = program.values[i];
      bytes_[i] = LocalBytes(value.type, value.spec, program.mesh, coordinate);
    }
    for (const ParameterBinding& parameter : program.parameters) {
      bytes_[parameter.value] = 0;
      if (parameter.gradient != -1) bytes_[parameter.gradient] = 0;
    }
    for (const Instruction& instruction : program.instructions) {
      if (const auto* run = std::get_if<RunSegmentBackward>(&instruction)) {
        has_backward_.insert(run->segment);
      }
    }
  }

  int64_t Measure() {
    for (const InputBinding& input : program_.inputs) Make(input.value);
    for (const Instruction& instruction : program_.instructions) {
      std::visit([this](const auto& i) { Run(i); }, instruction);
      peak_ = std::max(peak_, live_);
    }
    return peak_;
  }

 private:
  void Make(ValueId value) { live_ += bytes_[value]; }

  int64_t InnerBytes(const Segment& segment) const {
    const absl::btree_set<ValueId> outputs(segment.outputs.begin(),
                                           segment.outputs.end());
    int64_t inner = 0;
    for (const Op& op : segment.ops) {
      for (const ValueId result : op.results) {
        if (!outputs.contains(result)) inner += bytes_[result];
      }
    }
    return inner;
  }

  void Run(const RunSegment& run) {
    const Segment& segment = program_.segments[run.segment];
    for (const ValueId output : segment.outputs) Make(output);
    live_ += InnerBytes(segment);
    peak_ = std::max(peak_, live_);
    if (!has_backward_.contains(run.segment)) live_ -= InnerBytes(segment);
  }
  void Run(const RunSegmentBackward& run) {
    for (const ValueId gradient : run.input_gradients) {
      if (gradient != -1) Make(gradient);
    }
    peak_ = std::max(peak_, live_);
    live_ -= InnerBytes(program_.segments[run.segment]);
  }
  void Run(const Redistribute& step) {
    // An alias is the same memory: it takes over the bytes when its input goes.
    if (step.kind == RedistributeKind::kAlias) {
      bytes_[step.output] = 0;
      return;
    }
    Make(step.output);
  }
  void Run(const AllReduceBucket& bucket) {
    for (const ValueId output : bucket.outputs) Make(output);
  }
  void Run(const Accumulate& sum) { Make(sum.output); }
  void Run(const Ones& ones) { Make(ones.output); }
  void Run(const Free& free) {
    for (const ValueId value : free.values) live_ -= bytes_[value];
  }

  const ShardedProgram& program_;
  std::vector<int64_t> bytes_;  // by value
  absl::btree_set<int> has_backward_;
  int64_t live_ = 0;
  int64_t peak_ = 0;
};

// Whether a parameter gets a gradient: what the program says, else what it
// asks for.
std::vector<bool> HasGradient(const GraphModule& module,
                              const ShardedProgram* program) {
  std::vector<bool> has(module.parameters().size());
  for (size_t i = 0; i < has.size(); ++i) {
    const Parameter& parameter = module.parameters()[i];
    has[i] = program == nullptr && parameter.requires_grad;
  }
  if (program == nullptr) return has;
  absl::btree_set<std::string> with_gradient;
  for (const ParameterBinding& binding : program->parameters) {
    if (binding.gradient != -1) with_gradient.insert(binding.fqn);
  }
  for (size_t i = 0; i < has.size(); ++i) {
    has[i] = with_gradient.contains(module.parameters()[i].fqn);
  }
  return has;
}

}  // namespace

int64_t PeakActivationBytes(const ShardedProgram& program,
                            absl::Span<const int> coordinate) {
  return ActivationMeter(program, coordinate).Measure();
}

std::vector<RankMemory> EstimateMemory(const GraphModule& module,
                                       const DeviceMesh& mesh,
                                       const ResolvedPlan& plan,
                                       const ShardedProgram* program) {
  const std::vector<bool> has_gradient = HasGradient(module, program);
  const int ranks = std::min(mesh.size(), kMaxReportedRanks);
  std::vector<RankMemory> memory;
  for (int rank = 0; rank < ranks; ++rank) {
    const std::vector<int> coordinate = mesh.Coordinate(rank);
    RankMemory line{.rank = rank};
    for (size_t i = 0; i < module.parameters().size(); ++i) {
      const Parameter& parameter = module.parameters()[i];
      if (!parameter.alias_of.empty()) continue;
      const int64_t bytes =
          LocalBytes(parameter.type, plan.parameter_specs[i], mesh, coordinate);
      (parameter.buffer ? line.buffer_bytes : line.parameter_bytes) += bytes;
      if (has_gradient[i] && !parameter.buffer) line.gradient_bytes += bytes;
    }
    if (program != nullptr) {
      line.peak_activation_bytes = PeakActivationBytes(*program, coordinate);
    }
    memory.push_back(line);
  }
  return memory;
}

}  // namespace shardplane
