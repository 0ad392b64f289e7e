#include "proto/convert/explanation.h"

#include "proto/convert/report.h"
#include "proto/convert/types.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

pb::Explanation::Kind ToProto(Explanation::Kind kind) {
  switch (kind) {
    case Explanation::Kind::kModule:
      return pb::Explanation::KIND_MODULE;
    case Explanation::Kind::kParameter:
      return pb::Explanation::KIND_PARAMETER;
    case Explanation::Kind::kBuffer:
      return pb::Explanation::KIND_BUFFER;
  }
  return pb::Explanation::KIND_UNSPECIFIED;
}

pb::Explanation::Match::Outcome ToProto(MatchOutcome outcome) {
  switch (outcome) {
    case MatchOutcome::kApplied:
      return pb::Explanation::Match::OUTCOME_APPLIED;
    case MatchOutcome::kCountedOnce:
      return pb::Explanation::Match::OUTCOME_COUNTED_ONCE;
    case MatchOutcome::kPartly:
      return pb::Explanation::Match::OUTCOME_PARTLY;
  }
  return pb::Explanation::Match::OUTCOME_UNSPECIFIED;
}

void Fill(const ExplainedMatch& match, pb::Explanation::Match* message) {
  message->set_pattern(match.pattern);
  message->set_style(match.style);
  message->set_mesh_dim(match.mesh_dim);
  message->set_outcome(ToProto(match.outcome));
  for (const std::string& text : match.contributed) {
    message->add_contributed(text);
  }
}

void Fill(const ExplainedTensor& tensor, pb::Explanation::Tensor* message) {
  message->set_fqn(tensor.fqn);
  *message->mutable_type() = shardplane::ToProto(tensor.type);
  *message->mutable_spec() = shardplane::ToProto(tensor.spec);
  message->set_text(ToString(tensor.spec));
  message->set_alias_of(tensor.alias_of);
  message->set_buffer(tensor.buffer);
  message->set_requires_grad(tensor.requires_grad);
  for (const ExplainedPart& part : tensor.parts) {
    pb::Explanation::Part* line = message->add_parts();
    line->set_rank(part.rank);
    for (size_t d = 0; d < part.dims.size(); ++d) {
      const Stretches& dim = part.dims[d];
      line->add_offsets(dim.empty() ? tensor.type.shape[d] : dim[0].offset);
      line->add_sizes(SizeOf(dim));
      for (const Extent& stretch : dim) {
        if (dim.size() == 1) break;
        pb::Explanation::Part::Stretch* message = line->add_stretches();
        message->set_dim(static_cast<int>(d));
        message->set_offset(stretch.offset);
        message->set_size(stretch.size);
      }
    }
    line->set_bytes(part.bytes);
  }
}

void Fill(const ExplainedCollective& collective,
          pb::Explanation::Collective* message) {
  message->set_program(collective.program);
  message->set_phase(collective.phase);
  message->set_kind(collective.kind);
  message->set_mesh_dim(collective.mesh_dim);
  message->set_bytes(collective.bytes);
  message->set_why(collective.why);
  for (const std::string& module : collective.modules) {
    message->add_modules(module);
  }
  message->set_tensor(collective.tensor);
}

}  // namespace

v1::Explanation ToProto(const Explanation& explanation) {
  pb::Explanation message;
  message.set_fqn(explanation.fqn);
  message.set_kind(ToProto(explanation.kind));
  message.set_module_type(explanation.module_type);
  for (const ExplainedMatch& match : explanation.matches) {
    Fill(match, message.add_matches());
  }
  for (const ExplainedTensor& tensor : explanation.tensors) {
    Fill(tensor, message.add_tensors());
  }
  for (size_t rank = 0; rank < explanation.bytes.size(); ++rank) {
    pb::Explanation::RankBytes* line = message.add_bytes();
    line->set_rank(static_cast<int>(rank));
    line->set_bytes(explanation.bytes[rank]);
  }
  for (const ExplainedCollective& collective : explanation.collectives) {
    Fill(collective, message.add_collectives());
  }
  for (const Diagnostic& diagnostic : explanation.diagnostics) {
    *message.add_diagnostics() = shardplane::ToProto(diagnostic);
  }
  return message;
}

}  // namespace shardplane
