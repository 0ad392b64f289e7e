#include "worker/shm/moves.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "worker/shm/copy_bytes.h"

namespace shardplane {
namespace {

// A piece of a buffer.
struct Range {
  int64_t begin = 0;
  int64_t bytes = 0;
};

// What chunk `index` has of a buffer that is cut into pieces of `piece_bytes`.
Range Piece(int64_t index, int64_t piece_bytes, int64_t total) {
  const int64_t begin = std::min(index * piece_bytes, total);
  return {begin, std::min(piece_bytes, total - begin)};
}

// Bytes of a slot for one destination of an exchange.
int64_t PartBytes(const ShmSizes& sizes) {
  return sizes.slot_bytes / sizes.ranks / kShmAlignment * kShmAlignment;
}

// What `rank` reduces of a chunk of that many bytes: whole elements.
Range ReducedPart(int64_t bytes, int64_t element_bytes, int ranks, int rank) {
  const int64_t elements = bytes / element_bytes;
  const int64_t begin = elements * rank / ranks;
  const int64_t end = elements * (rank + 1) / ranks;
  return {begin * element_bytes, (end - begin) * element_bytes};
}

bool IsExchange(ShmKind kind) {
  return kind == ShmKind::kExchange || kind == ShmKind::kExchangeReduce;
}

int ranks(const ShmChunk& chunk) { return chunk.segment->sizes().ranks; }

std::byte* Slot(const ShmChunk& chunk, int rank) {
  return chunk.segment->slot(rank, chunk.sequence);
}

void Move(std::byte* to, const std::byte* from, int64_t bytes) {
  if (to != from && bytes > 0) CopyBytes(to, from, bytes);
}

// Reduces what all ranks have at `offset` of their slots, this rank's own
// from where `own` says, into `out`.
void ReduceInto(const ShmChunk& chunk, std::byte* out, const std::byte* own,
                int64_t offset, int64_t bytes) {
  if (bytes == 0) return;
  std::array<const std::byte*, kMaxShmRanks> in;
  for (int rank = 0; rank < ranks(chunk); ++rank) {
    in[rank] = rank == chunk.rank ? own : Slot(chunk, rank) + offset;
  }
  const ShmReducer& reducer = chunk.transfer->reducer;
  reducer.function(out, in.data(), ranks(chunk), bytes / reducer.element_bytes);
}

void WriteShared(const ShmChunk& chunk) {
  if (chunk.transfer->sources.empty()) return;
  const ShmSource& source = chunk.transfer->sources[0];
  const Range piece =
      Piece(chunk.index, chunk.segment->sizes().slot_bytes, source.bytes);
  Move(Slot(chunk, chunk.rank), source.data + piece.begin, piece.bytes);
}

void WriteParts(const ShmChunk& chunk) {
  const int64_t part_bytes = PartBytes(chunk.segment->sizes());
  for (size_t to = 0; to < chunk.transfer->sources.size(); ++to) {
    if (static_cast<int>(to) == chunk.rank) continue;
    const ShmSource& source = chunk.transfer->sources[to];
    const Range piece = Piece(chunk.index, part_bytes, source.bytes);
    Move(Slot(chunk, chunk.rank) + to * part_bytes, source.data + piece.begin,
         piece.bytes);
  }
}

void ReadShared(const ShmChunk& chunk) {
  const ShmTransfer& transfer = *chunk.transfer;
  const int64_t slot_bytes = chunk.segment->sizes().slot_bytes;
  for (size_t i = 1; i <= transfer.targets.size(); ++i) {
    // Starting behind oneself, so that not all read the same rank at once.
    const int from = (chunk.rank + i) % ranks(chunk);
    const ShmTarget& target = transfer.targets[from];
    const Range piece = Piece(chunk.index, slot_bytes, target.bytes);
    if (piece.bytes == 0) continue;  // there may be no source either
    const std::byte* data = from == chunk.rank
                                ? transfer.sources[0].data + piece.begin
                                : Slot(chunk, from);
    Move(target.data + piece.begin, data, piece.bytes);
  }
}

void ReadParts(const ShmChunk& chunk) {
  const ShmTransfer& transfer = *chunk.transfer;
  const int64_t part_bytes = PartBytes(chunk.segment->sizes());
  for (size_t i = 1; i <= transfer.targets.size(); ++i) {
    const int from = (chunk.rank + i) % ranks(chunk);
    const ShmTarget& target = transfer.targets[from];
    const Range piece = Piece(chunk.index, part_bytes, target.bytes);
    if (piece.bytes == 0) continue;  // there may be no source either
    const std::byte* data =
        from == chunk.rank ? transfer.sources[chunk.rank].data + piece.begin
                           : Slot(chunk, from) + chunk.rank * part_bytes;
    Move(target.data + piece.begin, data, piece.bytes);
  }
}

void ReadReduced(const ShmChunk& chunk) {
  const ShmTransfer& transfer = *chunk.transfer;
  const ShmSizes& sizes = chunk.segment->sizes();
  const bool exchange = transfer.kind == ShmKind::kExchangeReduce;
  const int64_t piece_bytes = exchange ? PartBytes(sizes) : sizes.slot_bytes;
  const ShmTarget& target = transfer.targets[0];
  const Range piece = Piece(chunk.index, piece_bytes, target.bytes);
  const ShmSource& own = transfer.sources[exchange ? chunk.rank : 0];
  ReduceInto(chunk, target.data + piece.begin, own.data + piece.begin,
             exchange ? chunk.rank * piece_bytes : 0, piece.bytes);
}

// The parts that the other ranks have reduced.
void ReadReducedParts(const ShmChunk& chunk) {
  const ShmTransfer& transfer = *chunk.transfer;
  const ShmTarget& target = transfer.targets[0];
  const Range piece =
      Piece(chunk.index, chunk.segment->sizes().slot_bytes, target.bytes);
  for (int i = 1; i < ranks(chunk); ++i) {
    const int from = (chunk.rank + i) % ranks(chunk);
    const Range part = ReducedPart(piece.bytes, transfer.reducer.element_bytes,
                                   ranks(chunk), from);
    Move(target.data + piece.begin + part.begin, Slot(chunk, from) + part.begin,
         part.bytes);
  }
}

// All but what this rank reduces itself: its slot has room for the result
// there.
void WriteUnreduced(const ShmChunk& chunk) {
  const ShmTransfer& transfer = *chunk.transfer;
  const ShmSource& source = transfer.sources[0];
  const Range piece =
      Piece(chunk.index, chunk.segment->sizes().slot_bytes, source.bytes);
  const Range part = ReducedPart(piece.bytes, transfer.reducer.element_bytes,
                                 ranks(chunk), chunk.rank);
  std::byte* slot = Slot(chunk, chunk.rank);
  const std::byte* data = source.data + piece.begin;
  Move(slot, data, part.begin);
  const int64_t end = part.begin + part.bytes;
  Move(slot + end, data + end, piece.bytes - end);
}

}  // namespace

int64_t ChunkCount(const ShmTransfer& transfer, const ShmSizes& sizes) {
  const int64_t bytes =
      IsExchange(transfer.kind) ? PartBytes(sizes) : sizes.slot_bytes;
  return std::max<int64_t>(1, (transfer.longest + bytes - 1) / bytes);
}

bool HasReduceStep(ShmKind kind) { return kind == ShmKind::kReduceShare; }

void WriteChunk(const ShmChunk& chunk) {
  switch (chunk.transfer->kind) {
    case ShmKind::kShare:
    case ShmKind::kShareReduce:
      return WriteShared(chunk);
    case ShmKind::kExchange:
    case ShmKind::kExchangeReduce:
      return WriteParts(chunk);
    case ShmKind::kReduceShare:
      return WriteUnreduced(chunk);
  }
}

void ReduceChunk(const ShmChunk& chunk) {
  const ShmTransfer& transfer = *chunk.transfer;
  const ShmSource& source = transfer.sources[0];
  const Range piece =
      Piece(chunk.index, chunk.segment->sizes().slot_bytes, source.bytes);
  const Range part = ReducedPart(piece.bytes, transfer.reducer.element_bytes,
                                 ranks(chunk), chunk.rank);
  const int64_t offset = piece.begin + part.begin;
  std::byte* result = transfer.targets[0].data + offset;
  ReduceInto(chunk, result, source.data + offset, part.begin, part.bytes);
  Move(Slot(chunk, chunk.rank) + part.begin, result, part.bytes);
}

void ReadChunk(const ShmChunk& chunk) {
  switch (chunk.transfer->kind) {
    case ShmKind::kShare:
      return ReadShared(chunk);
    case ShmKind::kExchange:
      return ReadParts(chunk);
    case ShmKind::kShareReduce:
    case ShmKind::kExchangeReduce:
      return ReadReduced(chunk);
    case ShmKind::kReduceShare:
      return ReadReducedParts(chunk);
  }
}

uint64_t PeersRead(const ShmTransfer& transfer, const ShmSizes& sizes,
                   int rank) {
  uint64_t peers = 0;
  const bool reduced =
      transfer.kind != ShmKind::kShare && transfer.kind != ShmKind::kExchange;
  for (int from = 0; from < sizes.ranks; ++from) {
    const bool wanted = reduced || (!transfer.targets.empty() &&
                                    (transfer.targets[from].bytes > 0 ||
                                     transfer.targets[from].data != nullptr));
    if (wanted && from != rank) peers |= uint64_t{1} << from;
  }
  return peers;
}

}  // namespace shardplane
