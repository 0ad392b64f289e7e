#include "worker/packed_dim.h"

#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/cat.h"
#include "ATen/ops/zeros.h"
#include "worker/dim_first.h"
#include "worker/torch_tensors.h"

namespace shardplane {

PackedDim::PackedDim(int dim, int64_t extent, const Blocks& blocks, int ranks)
    : dim_(dim),
      extent_(extent),
      blocks_(blocks.empty() ? Blocks::Of({{.size = extent}}) : blocks),
      ranks_(ranks) {}

Stretches PackedDim::Part(int rank) const {
  return PartOf(extent_, blocks_, ranks_, rank);
}

std::vector<PackedDim::Piece> PackedDim::PiecesOf(int rank) const {
  std::vector<Piece> pieces;
  int64_t local = 0;
  for (const Block& block : blocks_.list()) {
    const Extent units = Chunk(block.size / block.unit, ranks_ / block.replicas,
                               rank / block.replicas);
    const Extent within{units.offset * block.unit, units.size * block.unit};
    pieces.push_back({&block, within, local});
    local += within.size;
  }
  return pieces;
}

at::Tensor PackedDim::ByRank(const at::Tensor& whole) const {
  std::vector<at::Tensor> chunks;
  for (int rank = 0; rank < ranks_; ++rank) {
    chunks.push_back(PadTo(NarrowTo(whole, dim_, Part(rank)), dim_, chunk()));
  }
  return at::cat(chunks, dim_);
}

at::Tensor PackedDim::Whole(const at::Tensor& by_rank) const {
  const int blocks = static_cast<int>(blocks_.list().size());
  std::vector<std::vector<at::Tensor>> parts(blocks);
  for (int rank = 0; rank < ranks_; ++rank) {
    const std::vector<Piece> pieces = PiecesOf(rank);
    for (int b = 0; b < blocks; ++b) {
      if (rank % pieces[b].block->replicas != 0) continue;
      parts[b].push_back(by_rank.narrow(dim_, rank * chunk() + pieces[b].local,
                                        pieces[b].within.size));
    }
  }
  std::vector<at::Tensor> in_order;
  for (const std::vector<at::Tensor>& block : parts) {
    in_order.insert(in_order.end(), block.begin(), block.end());
  }
  return at::cat(in_order, dim_);
}

at::Tensor PackedDim::Own(const at::Tensor& chunk, int rank) const {
  return chunk.narrow(dim_, 0, SizeOf(Part(rank))).contiguous();
}

at::Tensor PackedDim::ToSlots(const at::Tensor& own, int rank) const {
  std::vector<at::Tensor> slots;
  for (const Piece& piece : PiecesOf(rank)) {
    const Block& block = *piece.block;
    if (block.replicas == 1) continue;
    std::vector<int64_t> shape = own.sizes().vec();
    shape[dim_] = block.size;
    const at::Tensor slot = at::zeros(shape, own.options());
    slot.narrow(dim_, piece.within.offset, piece.within.size)
        .copy_(own.narrow(dim_, piece.local, piece.within.size));
    slots.push_back(slot);
  }
  return at::cat(slots, dim_);
}

at::Tensor PackedDim::FromSlots(const at::Tensor& own, const at::Tensor& slots,
                                int rank) const {
  at::Tensor result = own.clone(at::MemoryFormat::Contiguous);
  int64_t begin = 0;
  for (const Piece& piece : PiecesOf(rank)) {
    const Block& block = *piece.block;
    if (block.replicas == 1) continue;
    result.narrow(dim_, piece.local, piece.within.size)
        .copy_(
            slots.narrow(dim_, begin + piece.within.offset, piece.within.size));
    begin += block.size;
  }
  return result;
}

at::Tensor PackedDim::OnceEach(const at::Tensor& own, int rank) const {
  at::Tensor result = own;
  for (const Piece& piece : PiecesOf(rank)) {
    if (rank % piece.block->replicas == 0) continue;
    if (result.is_same(own)) result = own.clone(at::MemoryFormat::Contiguous);
    result.narrow(dim_, piece.local, piece.within.size).zero_();
  }
  return result;
}

Stretches Locate(const Stretches& outer, const Stretches& inner) {
  Stretches found;
  int64_t begin = 0;
  size_t next = 0;
  for (const Extent& stretch : outer) {
    for (; next < inner.size() &&
           inner[next].offset < stretch.offset + stretch.size;
         ++next) {
      found.push_back(
          {begin + inner[next].offset - stretch.offset, inner[next].size});
    }
    begin += stretch.size;
  }
  return found;
}

}  // namespace shardplane
