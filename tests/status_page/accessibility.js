// What a page must have for those who do not see it, or not well. Returns
// sentences, one a fault.
() => {
  const faults = [];
  const say = (element, what) => faults.push(
      `${what}: <${element.tagName.toLowerCase()} class="` +
      `${element.getAttribute("class") || ""}"> ` +
      `${(element.textContent || "").slice(0, 40)}`);
  const seen = (element) => {
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    return box.width > 0 && box.height > 0 && style.visibility !== "hidden" &&
        !element.closest("[aria-hidden='true']");
  };
  const all = (selector) =>
      [...document.querySelectorAll(selector)].filter(seen);
  const nameOf = (element) => {
    const by = element.getAttribute("aria-labelledby");
    if (by) return (document.getElementById(by) || {}).textContent || "";
    return element.getAttribute("aria-label") || element.textContent.trim();
  };

  if (!document.documentElement.lang) faults.push("the page has no language");
  if (!document.title) faults.push("the page has no title");
  if (all("main").length !== 1) faults.push("not one main");
  if (all("h1").length !== 1) faults.push("not one h1");
  let level = 0;
  for (const head of all("h1, h2, h3, h4")) {
    const now = Number(head.tagName[1]);
    if (level && now > level + 1) say(head, "a level of headings is left out");
    level = now;
  }
  const ids = new Set();
  for (const element of document.querySelectorAll("[id]")) {
    if (ids.has(element.id)) say(element, `id twice: ${element.id}`);
    ids.add(element.id);
  }
  for (const attribute of ["aria-labelledby", "aria-activedescendant"]) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      if (!ids.has(element.getAttribute(attribute))) {
        say(element, `${attribute} of nothing`);
      }
    }
  }
  for (const element of all("a, button, input, select, progress, [role=tree]," +
      "[role=treeitem], [role=img], [role=group], [role=region], section," +
      "[tabindex]")) {
    if (element.id === "main") continue;
    if (!nameOf(element)) say(element, "no name");
  }
  for (const input of all("input")) {
    if (!input.labels.length && !input.getAttribute("aria-label")) {
      say(input, "an input without a label");
    }
  }
  for (const head of all("th")) {
    if (!head.getAttribute("scope")) say(head, "a th without scope");
  }
  for (const table of all("table")) {
    if (!table.caption) say(table, "a table without caption");
  }
  for (const item of document.querySelectorAll("[role=treeitem]")) {
    for (const attribute of ["level", "posinset", "setsize", "selected"]) {
      if (!item.getAttribute(`aria-${attribute}`)) {
        say(item, `a treeitem without aria-${attribute}`);
      }
    }
    const owner = item.parentElement.closest(":not([role=none])");
    if (owner.getAttribute("role") !== "tree") say(item, "not in its tree");
  }
  for (const tree of document.querySelectorAll("[role=tree]")) {
    if (tree.tabIndex !== 0) say(tree, "a tree that Tab does not reach");
  }

  // Contrast by WCAG: 4.5 for text, 3 for large text and for graphics.
  const rgb = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((c) => c / 255).map(
        (c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + .05) / (low + .05);
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const hasText = (element) => [...element.childNodes].some(
      (node) => node.nodeType === 3 && node.textContent.trim());
  let measured = 0;
  for (const element of all("body *")) {
    if (element.closest("svg") || !hasText(element)) continue;
    const ratio = contrast(rgb(getComputedStyle(element).color),
                           ground(element));
    ++measured;
    if (ratio < 4.5) say(element, `text contrast ${ratio.toFixed(2)}`);
  }
  for (const element of document.querySelectorAll("svg text")) {
    const before = element.classList.contains("tiletext") &&
        element.previousElementSibling;
    const behind = before ? rgb(getComputedStyle(before).fill)
                          : ground(element.closest("svg"));
    const ratio = contrast(rgb(getComputedStyle(element).fill), behind);
    ++measured;
    if (ratio < 4.5) say(element, `svg text contrast ${ratio.toFixed(2)}`);
  }
  for (const element of document.querySelectorAll(".tile, .curve")) {
    const stroke = rgb(getComputedStyle(element).stroke);
    const ratio = contrast(stroke, ground(element.closest("svg")));
    if (ratio < 3) say(element, `line contrast ${ratio.toFixed(2)}`);
  }
  for (const element of all(".grid a, .bar, .key")) {
    const style = getComputedStyle(element);
    const color = element.classList.contains("free")
        ? rgb(style.borderTopColor) : rgb(style.backgroundColor);
    const ratio = contrast(color, ground(element.parentElement));
    if (ratio < 3) say(element, `mark contrast ${ratio.toFixed(2)}`);
  }
  if (!measured) faults.push("no text was measured");
  return faults;
}
