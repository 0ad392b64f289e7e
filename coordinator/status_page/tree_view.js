// The tree on the page: only the rows in sight are elements. The ARIA tree
// pattern, with the active row as aria-activedescendant.
const ROW = 30;
const BEYOND = 8;

// Opens what leads to the first folded layers, and these; whether there are.
function openToFirstBlock(node, id, opened) {
  for (const item of shownChildren(node, true)) {
    const below = id ? `${id}.${blockName(item)}` : blockName(item);
    if (item.count > 1 || openToFirstBlock(item.node, below, opened)) {
      opened.add(id).add(below);
      return true;
    }
  }
  return false;
}

class TreeView {
  constructor(deployment, onParameter) {
    this.onParameter = onParameter;
    this.opened = new Set([""]);
    this.folded = true;
    this.filter = "";
    this.active = "";
    this.box = el("div", {
      class: "tree", role: "tree", tabindex: 0, "aria-label": "Modules",
      scroll: () => this.drawSoon(), keydown: (event) => this.key(event)});
    this.space = el("div", {role: "none"});
    this.box.append(this.space);
    this.setDeployment(deployment);
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.box);
  }

  setDeployment(deployment) {
    this.deployment = deployment;
    this.root = moduleTree(deployment);
    sign(this.root, new Map());
    openToFirstBlock(this.root, "", this.opened);
    this.refresh();
  }

  refresh() {
    this.rows = treeRows(this.root, this.opened, this.folded, this.filter);
    this.space.style.height = `${this.rows.length * ROW}px`;
    if (!this.rows.some((row) => row.id === this.active)) this.active = "";
    this.draw();
  }

  drawSoon() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      this.draw();
    });
  }

  draw() {
    const from = Math.max(0, Math.floor(this.box.scrollTop / ROW) - BEYOND);
    const count = Math.ceil((this.box.clientHeight || 400) / ROW) + 2 * BEYOND;
    const seen = this.rows.slice(from, from + count)
        .map((row, i) => ({...row, index: from + i}));
    syncChildren(this.space, seen, (row) => this.keyOf(row),
                 (row) => this.create(row),
                 (box, row) => this.update(box, row));
    const active = this.rows.findIndex((row) => row.id === this.active);
    if (active >= from && active < from + count) {
      this.box.setAttribute("aria-activedescendant", `row-${active}`);
    } else {
      this.box.removeAttribute("aria-activedescendant");
    }
  }

  keyOf(row) {
    return `${row.id} ${row.parameter ? "p" : row.node.signature} ${row.count}`;
  }

  create(row) {
    const {parameter, node} = row;
    const what = parameter ? specText(parameter, this.deployment.mesh)
        : [lastToken(node.type).split(".").pop(), ...node.styles]
              .filter(Boolean).join(", ");
    const times = row.count > 1 ? ` ×${row.count}` : "";
    return el("div", {
      class: "treerow", role: "treeitem", title: parameter
          ? `${parameter.name}: ${what}` : node.type || row.label,
      click: () => this.click(row)},
      el("span", {class: "twist", "aria-hidden": "true"}),
      el("span", {class: "label mono"}, row.label + times),
      parameter && tinyTiles(parameter, this.deployment.mesh),
      el("span", {class: "what"}, what));
  }

  update(box, row) {
    box.style.top = `${row.index * ROW}px`;
    box.style.paddingLeft = `${.3 + (row.level - 1) * .9}rem`;
    setText(box.firstChild,
            row.open === undefined ? "" : row.open ? "▾" : "▸");
    const active = row.id === this.active;
    setAttributes(box, {
      id: `row-${row.index}`, "aria-level": String(row.level),
      "aria-posinset": String(row.position), "aria-setsize": String(row.among),
      "aria-selected": String(active),
      class: active ? "treerow active" : "treerow"});
    if (row.open === undefined) box.removeAttribute("aria-expanded");
    else box.setAttribute("aria-expanded", String(row.open));
  }

  click(row) {
    if (!row.parameter) this.toggle(row.id);
    this.go(this.rows.findIndex((one) => one.id === row.id));
  }

  toggle(id) {
    if (!this.opened.delete(id)) this.opened.add(id);
    this.refresh();
  }

  // Makes that row the active one, in sight.
  go(index) {
    const row = this.rows[Math.max(0, Math.min(this.rows.length - 1, index))];
    this.active = row.id;
    const top = this.rows.indexOf(row) * ROW;
    const height = this.box.clientHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + ROW > this.box.scrollTop + height) {
      this.box.scrollTop = top + ROW - height;
    }
    this.draw();
    if (row.parameter) this.onParameter(row.parameter);
  }

  parentOf(index) {
    for (let i = index; i >= 0; --i) {
      if (this.rows[i].level < this.rows[index].level) return i;
    }
    return index;
  }

  openSiblings(index) {
    const parent = this.parentOf(index);
    this.rows.filter((row, i) => row.open === false &&
        row.level === this.rows[index].level && this.parentOf(i) === parent)
        .forEach((row) => this.opened.add(row.id));
    this.refresh();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = Math.max(0, this.rows.findIndex((r) => r.id === this.active));
    const row = this.rows[at];
    const pageRows = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
    const act = {
      ArrowDown: () => this.go(at + 1),
      ArrowUp: () => this.go(at - 1),
      PageDown: () => this.go(at + pageRows),
      PageUp: () => this.go(at - pageRows),
      Home: () => this.go(0),
      End: () => this.go(this.rows.length - 1),
      ArrowRight: () => row.open === false ? this.toggle(row.id)
          : row.open && this.go(at + 1),
      ArrowLeft: () => row.open && row.level > 1 ? this.toggle(row.id)
          : this.go(this.parentOf(at)),
      Enter: () => row.parameter ? this.go(at)
          : row.open !== undefined && this.toggle(row.id),
      "*": () => this.openSiblings(at),
    }[event.key === " " ? "Enter" : event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }
}
