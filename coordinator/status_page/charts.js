// Curves and bars. Each has a table or a sentence that says the same.
const CHART = {width: 640, height: 220, left: 62, right: 8, top: 8, bottom: 24};

// Of many points the least and the greatest of each column of pixels.
function thin(points, columns) {
  if (points.length <= 2 * columns) return points;
  const out = [];
  for (let i = 0; i < columns; ++i) {
    const from = Math.floor(points.length * i / columns);
    const to = Math.floor(points.length * (i + 1) / columns);
    let low = from, high = from;
    for (let j = from; j < to; ++j) {
      if (points[j][1] < points[low][1]) low = j;
      if (points[j][1] > points[high][1]) high = j;
    }
    out.push(points[Math.min(low, high)]);
    if (low !== high) out.push(points[Math.max(low, high)]);
  }
  return out;
}

// About `count` round numbers from low to high.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((s) => s * power >= rough) * power;
  const out = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; ++i) {
    out.push(i * step);
  }
  return out;
}

function axes(box, xs, ys, x, y) {
  const {width, height, left, right, bottom} = CHART;
  for (const value of ys) {
    box.append(
        svg("line", {class: "axis", x1: left, x2: width - right, y1: y(value),
                     y2: y(value)}),
        svg("text", {x: left - 6, y: y(value) + 4, "text-anchor": "end"},
            numberText(value)));
  }
  for (const value of xs.filter(Number.isInteger)) {
    box.append(svg("text", {x: x(value), y: height - bottom + 17,
                            "text-anchor": "middle"}, String(value)));
  }
}

// steps: [{number, loss}] in order. Arrow keys and the pointer read it.
function lossChart(steps) {
  const all = steps.map((step) => [Number(step.number), scalarOf(step.loss)])
      .filter(([, loss]) => loss !== undefined);
  const points = all.filter(([, loss]) => isFinite(loss));
  const odd = all.length - points.length;
  if (!points.length) {
    return [el("p", {class: "note"}, odd
        ? `No finite loss in ${odd} steps.` : "No step with a loss yet.")];
  }
  const {width, height, left, right, top, bottom} = CHART;
  const losses = points.map((point) => point[1]);
  // Not by spreading: thousands of arguments are too many for some.
  const least = losses.reduce((a, b) => Math.min(a, b));
  const most = losses.reduce((a, b) => Math.max(a, b));
  const first = points[0], last = points[points.length - 1];
  const span = most - least || Math.abs(most) || 1;
  const low = least - .04 * span, high = most + .04 * span;
  const x = (n) => left + (width - left - right) *
      (last[0] === first[0] ? .5 : (n - first[0]) / (last[0] - first[0]));
  const y = (loss) => height - bottom -
      (height - top - bottom) * (loss - low) / (high - low);
  const summary = `Loss of steps ${first[0]} to ${last[0]}: first ` +
      `${numberText(first[1])}, last ${numberText(last[1])}, least ` +
      `${numberText(least)}, greatest ${numberText(most)}.`;
  const box = svg("svg", {
    class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0,
    "aria-label": `${summary} Arrow keys read single steps.`});
  axes(box, ticks(first[0], last[0], 6), ticks(low, high, 4), x, y);
  const path = thin(points, 300).map(([n, loss]) =>
      `${x(n).toFixed(1)} ${y(loss).toFixed(1)}`).join(" L ");
  box.append(svg("path", {class: "curve", d: `M ${path} h .01`}));
  const cursor = svg("line", {class: "cursor", x1: 0, x2: 0, y1: top,
                              y2: height - bottom, visibility: "hidden"});
  box.append(cursor);
  const said = el("p", {class: "mono", "aria-live": "polite"}, summary);
  let at = points.length - 1;
  const read = (index) => {
    at = Math.max(0, Math.min(points.length - 1, index));
    const [n, loss] = points[at];
    setAttributes(cursor, {x1: String(x(n)), x2: String(x(n)),
                           visibility: "visible"});
    setText(said, `step ${n}: loss ${numberText(loss)}`);
  };
  box.addEventListener("pointermove", (event) => {
    const area = box.getBoundingClientRect();
    const part = ((event.clientX - area.left) / area.width * width - left) /
        (width - left - right);
    read(Math.round(part * (points.length - 1)));
  });
  box.addEventListener("keydown", (event) => {
    const to = {ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 20,
                PageDown: at + 20, Home: 0, End: points.length - 1}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    read(to);
  });
  return [box, said, odd > 0 &&
      el("p", {class: "bad"}, `Steps without a finite loss: ${odd}.`)];
}

// Where a step's seconds went: [compute, collectives, commit, rest].
const PARTS = ["Run, without collectives", "Collectives",
               "Commit: agree and update", "Rest: RPC, coordinator"];
function splitOf(step) {
  const timing = step.timing || {};
  const run = timing.runSeconds || 0;
  const collectives = Math.min(run, timing.collectiveSeconds || 0);
  const commit = timing.commitCallSeconds || 0;
  const rest = Math.max(0, (step.durationSeconds || 0) - run - commit);
  return [run - collectives, collectives, commit, rest];
}

const BARS = 60;
function splitChart(steps) {
  const shownSteps = steps.filter((step) => step.timing).slice(-BARS);
  if (!shownSteps.length) {
    return [el("p", {class: "note"}, "No timed step yet.")];
  }
  const splits = shownSteps.map(splitOf);
  const totals = splits.map((split) => split.reduce((a, b) => a + b));
  const most = Math.max(...totals) || 1;
  const {width, height, left, right, top, bottom} = CHART;
  const y = (seconds) => height - bottom -
      (height - top - bottom) * seconds / (most * 1.04);
  const mean = PARTS.map((_, part) =>
      splits.reduce((sum, split) => sum + split[part], 0) / splits.length);
  const total = mean.reduce((a, b) => a + b) || 1;
  const first = shownSteps[0].number, last = shownSteps.at(-1).number;
  const box = svg("svg", {
    class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Time of steps ${first} to ${last}; the table has means`});
  for (const value of ticks(0, most, 4)) {
    box.append(svg("line", {class: "axis", x1: left, x2: width - right,
                            y1: y(value), y2: y(value)}),
               svg("text", {x: left - 6, y: y(value) + 4,
                            "text-anchor": "end"}, secondsText(value)));
  }
  const slot = (width - left - right) / Math.max(splits.length, 12);
  splits.forEach((split, i) => {
    let sum = 0;
    split.forEach((seconds, part) => {
      const bottomEdge = y(sum);
      sum += seconds;
      box.append(svg("rect", {class: `s${part}`, x: left + i * slot,
                              y: y(sum), width: Math.max(1, slot - 1),
                              height: Math.max(0, bottomEdge - y(sum))}));
    });
  });
  const rows = PARTS.map((name, part) => ({name, part}));
  return [box, table(
      `Mean of steps ${first} to ${last}: ${secondsText(total)}`, [
        {head: "Part", name: true, cell: ({name, part}) => [
          el("span", {class: `key s${part}`, "aria-hidden": "true"}), name]},
        {head: "Time", number: true, cell: ({part}) => secondsText(mean[part])},
        {head: "Share", number: true, cell: ({part}) =>
            `${(100 * mean[part] / total).toFixed(1)} %`}], rows)];
}

// A length beside its number.
function bar(part) {
  const box = el("div", {class: "bar", "aria-hidden": "true"});
  box.style.width = `${(100 * part).toFixed(1)}%`;
  return el("div", {class: "barbox"}, box);
}
