// A parameter as tiles over the ranks.
const MOST_TILES = 512;
const COLORS = 8;

function tileClass(picture, tile, i, ranks) {
  const color = tile.ranks.length === ranks ? "all" : `t${i % COLORS}`;
  return `tile ${color}${picture.partial ? " partial" : ""}`;
}

const ranksOf = (mesh) =>
    product(((mesh && mesh.dims) || []).map((dim) => dim.size));

// A small picture beside a line of text that says the same.
function tinyTiles(parameter, mesh) {
  const shape = shapeOf(parameter.type);
  const picture = tilesOf(shape, parameter.spec || {}, mesh);
  const ranks = ranksOf(mesh);
  const width = 72, height = 20;
  const x = (column) => 1 + (width - 2) * column / (picture.columns || 1);
  const y = (row) => 1 + (height - 2) * row / (picture.rows || 1);
  const box = svg("svg", {width, height, viewBox: `0 0 ${width} ${height}`,
                          "aria-hidden": "true"});
  // Beyond this they are thinner than a line.
  const drawn = picture.tiles.slice(0, 36);
  if (drawn.length < picture.tiles.length) {
    box.append(svg("rect", {class: "tile t7", x: 1, y: 1, width: width - 2,
                            height: height - 2}));
    return box;
  }
  drawn.forEach((tile, i) => box.append(svg("rect", {
    class: tileClass(picture, tile, i, ranks), x: x(tile.column[0]),
    y: y(tile.row[0]), width: x(tile.column[1]) - 1,
    height: y(tile.row[1]) - 1})));
  return box;
}

const rangeOf = ([offset, size]) => `${offset}–${offset + size - 1}`;

function tileText(picture, tile, parameter) {
  const where = [];
  if (picture.rowDim >= 0) {
    where.push(`dim ${picture.rowDim}: ${rangeOf(tile.row)}`);
  }
  if (shapeOf(parameter.type).length) {
    where.push(`dim ${picture.columnDim}: ${rangeOf(tile.column)}`);
  }
  const shape = shapeOf(parameter.type).map((size, dim) =>
      dim === picture.rowDim ? tile.row[1]
          : dim === picture.columnDim ? tile.column[1] : size);
  const bytes = product(shape) * dtypeOf(parameter.type)[1];
  const ranks = tile.ranks.length > 1 ? "ranks" : "rank";
  return `${ranks} ${rangesText(tile.ranks)}: ${where.join(", ") || "all"}, ` +
         `${shape.join(" × ") || "one element"}, ${bytesText(bytes)}` +
         (picture.partial ? ", to be reduced" : "");
}

// One line for all tiles: "[S(0)] f32[8, 10], 4 tiles".
function specText(parameter, mesh) {
  const count = tilesOf(shapeOf(parameter.type), parameter.spec || {},
                        mesh).tiles.length;
  return `${parameter.text || ""} ${typeText(parameter.type)}, ` +
         (count === 1 ? "whole on each rank" : `${count} tiles`);
}

// The large picture: its tiles take the focus, and say what they are.
function tilePicture(parameter, mesh) {
  const picture = tilesOf(shapeOf(parameter.type), parameter.spec || {}, mesh);
  const ranks = ranksOf(mesh);
  const width = 640;
  const height = picture.rows === 1 ? 56 : 240;
  const said = el("p", {class: "mono", "aria-live": "polite"},
                  "Point at a tile, or move to one with the arrow keys.");
  const shownTiles = picture.tiles.slice(0, MOST_TILES);
  const box = svg("svg", {
    class: "picture", viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": `${parameter.name}: ${specText(parameter, mesh)}`});
  shownTiles.forEach((tile, i) => {
    const x = 2 + (width - 4) * tile.column[0] / picture.columns;
    const y = 2 + (height - 4) * tile.row[0] / picture.rows;
    const w = (width - 4) * tile.column[1] / picture.columns;
    const h = (height - 4) * tile.row[1] / picture.rows;
    const text = tileText(picture, tile, parameter);
    const tell = () => setText(said, text);
    box.append(svg("rect", {
      class: tileClass(picture, tile, i, ranks), x, y, width: w, height: h,
      role: "img", tabindex: i ? -1 : 0, "aria-label": text, focus: tell,
      pointerenter: tell}));
    const label = rangesText(tile.ranks);
    if (w > 8 * label.length + 4 && h > 14) {
      box.append(svg("text", {class: "tiletext", x: x + w / 2, y: y + h / 2 + 4,
                              "text-anchor": "middle", "aria-hidden": "true"},
                     label));
    }
  });
  // Not on the picture: Chromium gives the focus to SVG that listens for it.
  const frame = el("div", {}, box);
  roving(frame, ".tile");
  const more = picture.tiles.length - shownTiles.length;
  return [frame, more > 0 &&
      el("p", {class: "note"}, `${countText(more)} further tiles are in the ` +
                               "table alone."), said];
}

const FIRST_RANKS = 16;

// What each rank has, as numbers; the first ranks, and all where asked for.
function rankTable(parameter, deployment) {
  const shape = shapeOf(parameter.type);
  const parts = partsByRank(shape, parameter.spec, deployment.mesh);
  const workers = deployment.workers || [];
  const columns = [
    {head: "Rank", number: true, cell: ({rank}) => String(rank)},
    {head: "Worker", name: true, cell: ({rank}) =>
        workers[rank] ? lastToken(workers[rank]) : ""},
    {head: "Part", name: true, cell: ({part}) => part.map((stretches) =>
        stretches.map(rangeOf).join(", ") || "nothing").join(" × ")},
    {head: "Shape", name: true, cell: ({part}) =>
        part.map(sizeOf).join(" × ")},
    {head: "Bytes", number: true, cell: ({part}) => bytesText(
        product(part.map(sizeOf)) * dtypeOf(parameter.type)[1])}];
  const rows = parts.map((part, rank) => ({rank, part}));
  const box = el("div", {});
  const draw = (count) => {
    box.replaceChildren(table("Part of each rank", columns,
                              rows.slice(0, count)));
    if (count < rows.length) {
      box.append(el("button", {type: "button", click: () => draw(rows.length)},
                    `Show all ${rows.length} ranks`));
    }
  };
  draw(FIRST_RANKS);
  return box;
}

function parameterPanel(parameter, deployment) {
  return [
    el("h3", {class: "mono"}, parameter.name),
    el("p", {}, specText(parameter, deployment.mesh),
       parameter.more && parameter.more.aliasOf
           ? `; the same tensor as ${parameter.more.aliasOf}` : "",
       parameter.more && parameter.more.buffer ? "; a buffer" : ""),
    tilePicture(parameter, deployment.mesh),
    rankTable(parameter, deployment)];
}
