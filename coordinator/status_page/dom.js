// Elements of the page. Whatever is shown is text: there is no way from a name
// that somebody has chosen to markup.
const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter(
      (child) => child !== null && child !== undefined && child !== false));
  return element;
}

// el("a", {href: "#/", click: handler}, "text", [children])
function el(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

// One child of `parent` for each item, in their order: those of known keys are
// kept and updated, so that focus and scrolling stay.
function syncChildren(parent, items, keyOf, create, update) {
  const known = parent.shownByKey || new Map();
  const now = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = known.get(key);
    if (!child) child = create(item);
    update(child, item);
    now.set(key, child);
    if (child === at) at = at.nextSibling;
    else parent.insertBefore(child, at);
  }
  for (const [key, child] of known) if (!now.has(key)) child.remove();
  parent.shownByKey = now;
}

// Sets only what differs: what has not changed need not be drawn again.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
}

// Columns: {head, number, cell(row)}; a cell is text or an element. The table
// scrolls by itself where it is wider than the page, by keyboard too. The
// caption is not seen where a heading says the same.
function table(caption, columns, rows, seen = true) {
  const kind = (column) => (column.number ? "number" : column.name && "name");
  return el("div", {class: "scroll", tabindex: 0, role: "region",
                    "aria-label": caption},
    el("table", {},
      el("caption", {class: !seen && "unseen"}, caption),
      el("thead", {}, el("tr", {}, columns.map((column) =>
        el("th", {scope: "col", class: kind(column)}, column.head)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, columns.map((column) =>
        el("td", {class: kind(column)}, column.cell(row))))))));
}

function section(title, ...children) {
  const id = "h-" + title.toLowerCase().replace(/[^a-z]+/g, "-");
  return el("section", {"aria-labelledby": id},
            el("h2", {id}, title), children);
}

function facts(pairs) {
  return el("dl", {class: "facts"}, pairs.filter(([, value]) => value).map(
      ([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

// Arrow keys move the focus among the elements that `selector` finds; one of
// them at a time takes part in the order of Tab.
function roving(container, selector) {
  const all = () => [...container.querySelectorAll(selector)];
  container.addEventListener("focusin", (event) => {
    const now = event.target.closest(selector);
    if (!now) return;
    for (const one of container.querySelectorAll(selector + "[tabindex='0']")) {
      one.setAttribute("tabindex", "-1");
    }
    now.setAttribute("tabindex", "0");
  });
  container.addEventListener("keydown", (event) => {
    const items = all();
    const at = items.indexOf(event.target.closest(selector));
    const to = {ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1,
                ArrowUp: at - 1, Home: 0, End: items.length - 1}[event.key];
    if (at < 0 || to === undefined || !items[to]) return;
    event.preventDefault();
    items[to].focus();
  });
}

function keepOneInTabOrder(container, selector) {
  if (!container.querySelector(selector + "[tabindex='0']")) {
    const first = container.querySelector(selector);
    if (first) first.setAttribute("tabindex", "0");
  }
}
