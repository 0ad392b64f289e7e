#include "common/collective_count.h"

#include <string>
#include <utility>
#include <vector>

namespace shardplane {

void CollectiveTally::Add(const std::string& kind, int64_t bytes) {
  for (CollectiveCount& row : rows_) {
    if (row.kind != kind) continue;
    ++row.count;
    row.bytes += bytes;
  }
}

std::vector<CollectiveCount> CollectiveTally::Take(
    const std::string& phase) && {
  std::erase_if(rows_, [](const auto& row) { return row.count == 0; });
  for (CollectiveCount& row : rows_) row.phase = phase;
  return std::move(rows_);
}

std::vector<CollectiveCount> CountCollectives(
    const std::string& phase, absl::Span<const CollectiveRecord> records) {
  CollectiveTally tally;
  for (const CollectiveRecord& record : records) {
    tally.Add(ToString(record.kind), CountedBytes(record));
  }
  return std::move(tally).Take(phase);
}

}  // namespace shardplane
