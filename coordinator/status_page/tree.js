// The module tree: made from the FQNs of a deployment, equal neighbours folded.

// A node: {name, fqn, type, style, parameters, children}, the root's FQN is "".
function newNode(name, fqn) {
  return {name, fqn, type: "", styles: [], parameters: [], children: new Map()};
}

function nodeAt(root, fqn) {
  let node = root;
  let path = "";
  for (const token of fqn ? fqn.split(".") : []) {
    path = path ? `${path}.${token}` : token;
    if (!node.children.has(token)) {
      node.children.set(token, newNode(token, path));
    }
    node = node.children.get(token);
  }
  return node;
}

function moduleTree(deployment) {
  const report = deployment.report || {};
  const module = deployment.module || {};
  const root = newNode("(root)", "");
  for (const one of module.modules || []) {
    nodeAt(root, one.fqn || "").type = one.type || "";
  }
  for (const one of report.assignments || []) {
    const node = nodeAt(root, one.fqn || "");
    node.styles.push(one.style);
    node.type = node.type || one.moduleType || "";
  }
  const known = new Map((module.parameters || []).map((p) => [p.fqn, p]));
  for (const one of report.parameters || []) {
    const dot = one.name.lastIndexOf(".");
    nodeAt(root, dot < 0 ? "" : one.name.slice(0, dot)).parameters.push(
        {...one, leaf: one.name.slice(dot + 1), more: known.get(one.name)});
  }
  return root;
}

// Nodes whose signatures are equal look alike but for their names.
function sign(node, table) {
  const text = JSON.stringify([
    node.type, node.styles,
    node.parameters.map((p) => [p.leaf, p.type, p.text, p.spec]),
    [...node.children.values()].map((child) => [child.name,
                                                sign(child, table)])]);
  if (!table.has(text)) table.set(text, table.size);
  node.signature = table.get(text);
  return node.signature;
}

const isNumber = (name) => /^\d+$/.test(name);

// Children as they are shown: neighbours with numbers for names and equal
// signatures are one, "0–125", in the manner of the first.
function shownChildren(node, folded) {
  const out = [];
  for (const child of node.children.values()) {
    const last = out[out.length - 1];
    if (folded && last && isNumber(child.name) &&
        last.node.signature === child.signature &&
        Number(child.name) === last.to + 1) {
      last.to = Number(child.name);
      last.count += 1;
    } else {
      out.push({node: child, count: 1, from: child.name,
                to: isNumber(child.name) ? Number(child.name) : NaN});
    }
  }
  return out;
}

const blockName = (item) =>
    item.count > 1 ? `${item.from}–${item.to}` : item.node.name;

// Rows that are visible: {id, level, label, node or parameter, open, ...}.
// `opened` has the ids of what is open; with a `filter`, whatever has a part
// whose FQN holds it is shown, open and unfolded.
function treeRows(root, opened, folded, filter) {
  const rows = [];
  const wanted = filter.toLowerCase();
  const hit = (fqn) => fqn.toLowerCase().includes(wanted);
  const holds = (node) =>
      hit(node.fqn) || node.parameters.some((p) => hit(p.name)) ||
      [...node.children.values()].some(holds);
  const visit = (item, level, path, position, among) => {
    const {node} = item;
    const id = level === 1 ? "" : path ? `${path}.${blockName(item)}`
                                       : blockName(item);
    const children = shownChildren(node, folded && !wanted)
        .filter((child) => !wanted || hit(node.fqn) || holds(child.node));
    const parameters = node.parameters.filter(
        (p) => !wanted || hit(node.fqn) || hit(p.name));
    const leaf = !children.length && !parameters.length;
    const open = !leaf && (wanted ? true : opened.has(id));
    rows.push({id, level, node, count: item.count, label: level === 1
        ? node.name : blockName(item), open: leaf ? undefined : open,
               position, among});
    if (!open) return;
    const total = parameters.length + children.length;
    parameters.forEach((parameter, i) => rows.push({
      id: id ? `${id}.${parameter.leaf}` : parameter.leaf, level: level + 1,
      parameter, label: parameter.leaf, position: i + 1, among: total}));
    children.forEach((child, i) => visit(child, level + 1, id,
                                         parameters.length + i + 1, total));
  };
  visit({node: root, count: 1, from: root.name}, 1, "", 1, 1);
  return rows;
}

// What has the same cells and FQNs that differ in one number is one line:
// {fqn: "layers.0–125.up", count: 126, ...}. `cells(row)` must not have FQNs.
function foldRows(rows, cells) {
  const out = [];
  const byKey = new Map();
  for (const row of rows) {
    const tokens = (row.fqn || "").split(".");
    const at = tokens.findIndex(isNumber);
    const key = JSON.stringify([tokens.map((t, i) => (i === at ? "#" : t)),
                                cells(row)]);
    const one = at >= 0 && byKey.get(key);
    if (one) {
      one.numbers.push(Number(tokens[at]));
      one.count += 1;
    } else {
      const made = {...row, tokens, at, count: 1,
                    numbers: at < 0 ? [] : [Number(tokens[at])]};
      byKey.set(key, made);
      out.push(made);
    }
  }
  for (const row of out) {
    if (row.at >= 0) row.tokens[row.at] = rangesText(row.numbers);
    row.fqn = row.tokens.join(".") || "(root)";
  }
  return out;
}
