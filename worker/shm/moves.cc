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

// Calls visit(data, offset, bytes) for what `piece` has of each run of a
// ShmSource or ShmTarget; `offset` counts from the piece's begin.
template <typename Buffer, typename Visit>
void ForEachRun(const Buffer& buffer, const Range& piece, Visit&& visit) {
  if (piece.bytes == 0) return;
  if (buffer.run_bytes == 0)
    return visit(buffer.data + piece.begin, int64_t{0}, piece.bytes);
  auto* run =
      buffer.data + piece.begin / buffer.run_bytes * buffer.stride_bytes;
  int64_t within = piece.begin % buffer.run_bytes;
  for (int64_t offset = 0; offset < piece.bytes;) {
    const int64_t bytes =
        std::min(buffer.run_bytes - within, piece.bytes - offset);
    visit(run + within, offset, bytes);
    offset += bytes;
    run += buffer.stride_bytes;
    within = 0;
  }
}

// A piece of a source, or of a target, to where it lies together.
template <typename Buffer>
void Collect(std::byte* to, const Buffer& buffer, const Range& piece) {
  ForEachRun(buffer, piece,
             [&](const std::byte* run, int64_t offset, int64_t bytes) {
               Move(to + offset, run, bytes);
             });
}

void Spread(const ShmTarget& target, const Range& piece,
            const std::byte* from) {
  ForEachRun(target, piece, [&](std::byte* run, int64_t offset, int64_t bytes) {
    Move(run, from + offset, bytes);
  });
}

// What a rank has for itself.
void MoveOwn(const ShmTarget& target, const ShmSource& source,
             const Range& piece) {
  ForEachRun(target, piece, [&](std::byte* run, int64_t offset, int64_t bytes) {
    Collect(run, source, {piece.begin + offset, bytes});
  });
}

// Reduces what all ranks have at `offset` of their slots, this rank's own
// from its source, into the target. Run by run, each in rank order.
void ReduceInto(const ShmChunk& chunk, const ShmTarget& target,
                const ShmSource& own, const Range& piece, int64_t offset) {
  const ShmReducer& reducer = chunk.transfer->reducer;
  std::array<const std::byte*, kMaxShmRanks> in;
  ForEachRun(target, piece, [&](std::byte* out, int64_t done, int64_t bytes) {
    const Range run{piece.begin + done, bytes};
    ForEachRun(own, run,
               [&](const std::byte* data, int64_t more, int64_t part) {
                 for (int rank = 0; rank < ranks(chunk); ++rank) {
                   in[rank] = rank == chunk.rank
                                  ? data
                                  : Slot(chunk, rank) + offset + done + more;
                 }
                 reducer.function(out + more, in.data(), ranks(chunk),
                                  part / reducer.element_bytes);
               });
  });
}

void WriteShared(const ShmChunk& chunk) {
  if (chunk.transfer->sources.empty()) return;
  const ShmSource& source = chunk.transfer->sources[0];
  Collect(Slot(chunk, chunk.rank), source,
          Piece(chunk.index, chunk.segment->sizes().slot_bytes, source.bytes));
}

void WriteParts(const ShmChunk& chunk) {
  const int64_t part_bytes = PartBytes(chunk.segment->sizes());
  for (size_t to = 0; to < chunk.transfer->sources.size(); ++to) {
    if (static_cast<int>(to) == chunk.rank) continue;
    const ShmSource& source = chunk.transfer->sources[to];
    Collect(Slot(chunk, chunk.rank) + to * part_bytes, source,
            Piece(chunk.index, part_bytes, source.bytes));
  }
}

// What this rank wants of a share or of an exchange without a reduction.
void ReadPieces(const ShmChunk& chunk) {
  const ShmTransfer& transfer = *chunk.transfer;
  const ShmSizes& sizes = chunk.segment->sizes();
  const bool exchange = transfer.kind == ShmKind::kExchange;
  const int64_t piece_bytes = exchange ? PartBytes(sizes) : sizes.slot_bytes;
  for (size_t i = 1; i <= transfer.targets.size(); ++i) {
    // Starting behind oneself, so that not all read the same rank at once.
    const int from = (chunk.rank + i) % ranks(chunk);
    const ShmTarget& target = transfer.targets[from];
    const Range piece = Piece(chunk.index, piece_bytes, target.bytes);
    if (piece.bytes == 0) continue;  // there may be no source either
    if (from == chunk.rank) {
      MoveOwn(target, transfer.sources[exchange ? from : 0], piece);
    } else {
      Spread(target, piece,
             Slot(chunk, from) + (exchange ? chunk.rank * piece_bytes : 0));
    }
  }
}

void ReadReduced(const ShmChunk& chunk) {
  const ShmTransfer& transfer = *chunk.transfer;
  const ShmSizes& sizes = chunk.segment->sizes();
  const bool exchange = transfer.kind == ShmKind::kExchangeReduce;
  const int64_t piece_bytes = exchange ? PartBytes(sizes) : sizes.slot_bytes;
  const ShmTarget& target = transfer.targets[0];
  ReduceInto(chunk, target, transfer.sources[exchange ? chunk.rank : 0],
             Piece(chunk.index, piece_bytes, target.bytes),
             exchange ? chunk.rank * piece_bytes : 0);
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
    Spread(target, {piece.begin + part.begin, part.bytes},
           Slot(chunk, from) + part.begin);
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
  Collect(slot, source, {piece.begin, part.begin});
  const int64_t end = part.begin + part.bytes;
  Collect(slot + end, source, {piece.begin + end, piece.bytes - end});
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
  const Range reduced{piece.begin + part.begin, part.bytes};
  const ShmTarget& target = transfer.targets[0];
  ReduceInto(chunk, target, source, reduced, part.begin);
  Collect(Slot(chunk, chunk.rank) + part.begin, target, reduced);
}

void ReadChunk(const ShmChunk& chunk) {
  switch (chunk.transfer->kind) {
    case ShmKind::kShare:
    case ShmKind::kExchange:
      return ReadPieces(chunk);
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
