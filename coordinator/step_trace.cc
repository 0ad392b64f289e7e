#include "coordinator/step_trace.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

namespace shardplane {
namespace {

// The mesh dim along which ranks meet there; nullopt: they do not.
std::optional<int> MeetingDim(const Instruction& instruction) {
  if (const auto* move = std::get_if<Redistribute>(&instruction)) {
    return IsCollective(move->kind) ? std::optional(move->mesh_dim)
                                    : std::nullopt;
  }
  const auto* bucket = std::get_if<Bucket>(&instruction);
  return bucket == nullptr ? std::nullopt : std::optional(bucket->mesh_dim);
}

int64_t BeginOf(const Timeline& timeline, const TimelineSpan& span) {
  return timeline.begin_unix + span.when.begin;
}

}  // namespace

std::vector<std::vector<int64_t>> WaitsForPeers(
    const ShardedProgram& program, absl::Span<const Timeline> by_rank) {
  // The last beginning, by instruction and group: its ranks have one coordinate
  // in common but for the dim that they meet on.
  using Meeting = std::pair<int, std::vector<int>>;
  std::map<Meeting, int64_t> last;
  const auto meeting_of =
      [&](size_t rank, const TimelineSpan& span) -> std::optional<Meeting> {
    if (span.what.kind != SpanKind::kCollective) return std::nullopt;
    const std::optional<int> dim =
        MeetingDim(program.instructions[span.when.instruction]);
    if (!dim.has_value()) return std::nullopt;
    std::vector<int> group = program.mesh.Coordinate(static_cast<int>(rank));
    group[*dim] = 0;
    return Meeting(span.when.instruction, std::move(group));
  };
  for (size_t rank = 0; rank < by_rank.size(); ++rank) {
    for (const TimelineSpan& span : by_rank[rank].spans) {
      const std::optional<Meeting> meeting = meeting_of(rank, span);
      if (!meeting.has_value()) continue;
      const int64_t begin = BeginOf(by_rank[rank], span);
      const auto found = last.emplace(*meeting, begin).first;
      found->second = std::max(found->second, begin);
    }
  }
  std::vector<std::vector<int64_t>> waits(by_rank.size());
  for (size_t rank = 0; rank < by_rank.size(); ++rank) {
    for (const TimelineSpan& span : by_rank[rank].spans) {
      const std::optional<Meeting> meeting = meeting_of(rank, span);
      waits[rank].push_back(
          meeting.has_value()
              ? std::clamp<int64_t>(
                    last.at(*meeting) - BeginOf(by_rank[rank], span), 0,
                    span.when.duration)
              : 0);
    }
  }
  return waits;
}

}  // namespace shardplane
