// Which part of a tensor each rank has: what common/tensor_spec says, for the
// eye. A stretch is [offset, size]; a rank has a list of them for each dim.

// Part `index` of `parts` of n, as torch.chunk cuts: (5, 4, 2) -> [4, 1].
function chunk(n, parts, index) {
  const size = Math.ceil(n / parts);
  const begin = Math.min(n, size * index);
  return [begin, Math.min(n, begin + size) - begin];
}

function addStretch(stretches, offset, size) {
  const last = stretches[stretches.length - 1];
  if (!size) return;
  if (last && last[0] + last[1] === offset) last[1] += size;
  else stretches.push([offset, size]);
}

// Of a dim that is cut as one, or block by block in units that stay whole and
// that groups of `replicas` neighbouring ranks share.
function partOf(n, blocks, parts, index) {
  const out = [];
  if (!blocks || !blocks.length) {
    addStretch(out, ...chunk(n, parts, index));
    return out;
  }
  let begin = 0;
  for (const block of blocks) {
    const size = Number(block.size || 0);
    const unit = Number(block.unit || 1);
    const replicas = block.replicas || 1;
    const [offset, count] = chunk(size / unit, Math.floor(parts / replicas),
                                  Math.floor(index / replicas));
    addStretch(out, begin + offset * unit, count * unit);
    begin += size;
  }
  return out;
}

// What lies from `offset` on, `size` elements, of what the stretches have.
function within(stretches, [offset, size]) {
  const out = [];
  let begin = 0;
  for (const [at, length] of stretches) {
    const from = Math.max(offset, begin);
    const to = Math.min(offset + size, begin + length);
    if (from < to) addStretch(out, at + from - begin, to - from);
    begin += length;
  }
  return out;
}

const sizeOf = (stretches) => stretches.reduce((sum, s) => sum + s[1], 0);

// [[mesh dim, placement]] that cut this tensor dim, the outermost first.
function cutsOf(spec, dim) {
  const placements = spec.placements || [];
  const order = spec.cutOrder && spec.cutOrder.length
      ? spec.cutOrder : placements.map((_, i) => i);
  return order.filter((m) => placements[m] && placements[m].shard &&
                             (placements[m].shard.dim || 0) === dim)
      .map((m) => [m, placements[m].shard]);
}

function localStretches(extent, cuts, sizes, coordinate) {
  let local = [];
  addStretch(local, 0, extent);
  cuts.forEach(([m, shard], i) => {
    local = i === 0
        ? partOf(extent, shard.blocks, sizes[m], coordinate[m])
        : within(local, chunk(sizeOf(local), sizes[m], coordinate[m]));
  });
  return local;
}

// Ranks are numbered row-major over the mesh.
function coordinateOf(rank, sizes) {
  const coordinate = [];
  for (let m = sizes.length - 1; m >= 0; --m) {
    coordinate[m] = rank % sizes[m];
    rank = Math.floor(rank / sizes[m]);
  }
  return coordinate;
}

// By rank, by tensor dim, the stretches.
function partsByRank(shape, spec, mesh) {
  const sizes = ((mesh && mesh.dims) || []).map((dim) => dim.size);
  const cuts = shape.map((_, dim) => cutsOf(spec || {}, dim));
  return Array.from({length: product(sizes)}, (_, rank) => {
    const coordinate = coordinateOf(rank, sizes);
    return shape.map((extent, dim) =>
        localStretches(extent, cuts[dim], sizes, coordinate));
  });
}

// The tiles of a picture with rows and columns: rectangles of the tensor, each
// with the ranks that have it. Of more than two dims the two that are cut, or
// the first ones, are shown.
function tilesOf(shape, spec, mesh) {
  const cut = shape.map((_, dim) => cutsOf(spec || {}, dim).length > 0);
  const dims = shape.map((_, dim) => dim);
  const shown = dims.filter((dim) => cut[dim])
      .concat(dims.filter((dim) => !cut[dim])).slice(0, 2)
      .sort((a, b) => a - b);
  const [rowDim, columnDim] = shape.length < 2 ? [-1, 0] : shown;
  const tiles = new Map();
  partsByRank(shape, spec, mesh).forEach((part, rank) => {
    for (const row of rowDim < 0 ? [[0, 1]] : part[rowDim]) {
      for (const column of shape.length ? part[columnDim] : [[0, 1]]) {
        const key = `${row} ${column}`;
        if (!tiles.has(key)) tiles.set(key, {row, column, ranks: []});
        tiles.get(key).ranks.push(rank);
      }
    }
  });
  return {
    rows: rowDim < 0 ? 1 : shape[rowDim],
    columns: shape.length ? shape[columnDim] : 1,
    rowDim, columnDim, tiles: [...tiles.values()],
    partial: (spec.placements || []).some((p) => p.partial),
  };
}
