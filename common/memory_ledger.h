// Which tensors share which memory, and how much there is. Used by
// run_memory.cc and segment_memory.cc.
#ifndef SHARDPLANE_COMMON_MEMORY_LEDGER_H_
#define SHARDPLANE_COMMON_MEMORY_LEDGER_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace shardplane {

// Memory that tensors share, counted while somebody holds it.
class MemoryLedger {
 public:
  using Block = int;  // kNone: no memory
  static constexpr Block kNone = -1;
  enum class Kind { kActivation, kParameterGradient };

  // Held once.
  Block Make(int64_t bytes, Kind kind = Kind::kActivation) {
    blocks_.push_back({bytes, 1, kind});
    Count(blocks_.back(), bytes);
    return static_cast<Block>(blocks_.size()) - 1;
  }
  Block Hold(Block block) {
    if (block != kNone) ++blocks_[block].holders;
    return block;
  }
  void Drop(Block block) {
    if (block == kNone || --blocks_[block].holders > 0) return;
    Count(blocks_[block], -blocks_[block].bytes);
  }
  // Its memory is given back while it is held, and comes back.
  void Suspend(Block block) { Count(blocks_[block], -blocks_[block].bytes); }
  void Resume(Block block) { Count(blocks_[block], blocks_[block].bytes); }
  bool IsShared(Block block) const { return blocks_[block].holders > 1; }
  // It turns out to be the gradient of a parameter.
  void Reassign(Block block, Kind kind) {
    if (block == kNone || blocks_[block].kind == kind) return;
    Count(blocks_[block], -blocks_[block].bytes);
    blocks_[block].kind = kind;
    Count(blocks_[block], blocks_[block].bytes);
  }
  // For a moment.
  void Touch(int64_t bytes) { Drop(Make(bytes)); }

  int64_t most_activations() const { return most_activations_; }
  int64_t most() const { return most_; }

 private:
  struct Entry {
    int64_t bytes = 0;
    int holders = 0;
    Kind kind = Kind::kActivation;
  };

  void Count(const Entry& entry, int64_t bytes) {
    all_ += bytes;
    if (entry.kind == Kind::kActivation) activations_ += bytes;
    most_ = std::max(most_, all_);
    most_activations_ = std::max(most_activations_, activations_);
  }

  std::vector<Entry> blocks_;
  int64_t all_ = 0;
  int64_t activations_ = 0;
  int64_t most_ = 0;
  int64_t most_activations_ = 0;
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_MEMORY_LEDGER_H_
