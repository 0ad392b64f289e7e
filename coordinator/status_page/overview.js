// The first view: what there is and what happens.
const STATE_CLASS = {
  READY: "ok", SUCCEEDED: "ok", RUNNING: "ok", REGISTERING: "idle",
  DRAINING: "warn", MATERIALIZING: "warn", AWAITING_DATA: "warn",
  FORMING: "warn", CANCELLED: "warn", LOST: "bad", FENCED: "bad",
  FAILED: "bad", RETIRED: "idle", DELETED: "idle",
};

function stateText(resource) {
  const state = enumText(resource.state) || "UNSPECIFIED";
  return el("span", {class: STATE_CLASS[state] || "idle"}, state);
}

const workerHref = (name) => `#/workers/${encodeURIComponent(lastToken(name))}`;
const deploymentHref = (name) =>
    `#/deployments/${encodeURIComponent(lastToken(name))}`;

function resourceLink(name) {
  if (!name) return "";
  const href = name.startsWith("workers/") ? workerHref(name)
      : name.startsWith("deployments/") ? deploymentHref(name) : null;
  return href ? el("a", {href}, name) : name;
}

function workerText(worker) {
  const serves = worker.deployment
      ? `${worker.deployment} rank ${worker.rank || 0}` : "free";
  return `${worker.name}, ${enumText(worker.state)}, ${serves}`;
}

// A square for each worker; the letter says the state without its color.
class WorkerGrid {
  constructor() {
    this.state = "";
    this.filter = "";
    this.chips = el("div", {class: "row", role: "group",
                            "aria-label": "Workers by state"});
    this.search = el("input", {type: "search", placeholder: "Filter workers",
      "aria-label": "Filter workers by name, deployment or device",
      "data-filter": true, input: () => {
        this.filter = this.search.value.toLowerCase();
        this.update();
      }});
    this.note = el("p", {class: "note", "aria-live": "polite"});
    this.list = el("ul", {class: "grid", "aria-label": "Workers"});
    roving(this.list, "a");
    this.element = section("Workers", this.chips,
        el("div", {class: "row"}, this.search), this.list, this.note);
  }

  wanted(worker) {
    const text = `${worker.name} ${worker.deployment || ""} ` +
        `${worker.device || ""} ${worker.stateReason || ""}`;
    return (!this.state || enumText(worker.state) === this.state) &&
        text.toLowerCase().includes(this.filter);
  }

  update() {
    const workers = store.sorted("workers");
    const counts = new Map();
    for (const worker of workers) {
      const state = enumText(worker.state);
      counts.set(state, (counts.get(state) || 0) + 1);
    }
    syncChildren(this.chips, [...counts].sort(), ([state]) => state,
        ([state]) => el("button", {type: "button", click: () => {
          this.state = this.state === state ? "" : state;
          this.update();
        }}), (chip, [state, count]) => {
          setText(chip, `${state} ${countText(count)}`);
          setAttributes(chip,
                        {"aria-pressed": String(this.state === state)});
        });
    const shownWorkers = workers.filter((worker) => this.wanted(worker));
    syncChildren(this.list, shownWorkers, (worker) => worker.name,
        (worker) => el("li", {}, el("a", {href: workerHref(worker.name),
                                          tabindex: -1})),
        (item, worker) => this.draw(item.firstChild, worker));
    keepOneInTabOrder(this.list, "a");
    setText(this.note, `${countText(shownWorkers.length)} of ` +
        `${countText(workers.length)} workers. An outline is a free worker; ` +
        "letters: D draining, L lost, F fenced, R retired or registering.");
  }

  draw(link, worker) {
    const state = enumText(worker.state);
    const text = workerText(worker);
    const free = state === "READY" && !worker.deployment;
    setText(link, state === "READY" ? "" : state[0] || "?");
    setAttributes(link, {"aria-label": text, title: text,
                         class: free ? "free" : STATE_CLASS[state] || "idle"});
  }
}

function deploymentTable(deployments) {
  if (!deployments.length) return el("p", {class: "note"}, "None yet.");
  return table("Deployments", [
    {head: "Name", name: true, cell: (d) =>
        el("a", {href: deploymentHref(d.name)}, lastToken(d.name))},
    {head: "State", cell: stateText},
    {head: "Mesh", cell: (d) => meshText(d.mesh)},
    {head: "Ranks", number: true, cell: (d) => countText(ranksOf(d.mesh))},
    {head: "Last step", number: true, cell: (d) => countText(d.lastStep)},
    {head: "Labels", name: true, cell: (d) => Object.entries(d.labels || {})
        .map(([key, value]) => `${key}=${value}`).join(", ")},
    {head: "Since", cell: (d) => timeText(d.createTime)}], deployments, false);
}

function operationTable(operations) {
  if (!operations.length) return el("p", {class: "note"}, "None.");
  return table("Operations", [
    {head: "What", name: true, cell: (o) =>
        [enumText(o.kind), " ", resourceLink(o.resource)]},
    {head: "State", cell: stateText},
    {head: "Progress", cell: (o) => [
      el("progress", {max: 100, value: o.percent || 0,
                      "aria-label": `${o.resource}: percent done`}),
      ` ${(o.percent || 0).toFixed(0)} %`]},
    {head: "Bytes", number: true, cell: (o) =>
        `${bytesText(o.bytesDone)} of ${bytesText(o.bytesTotal)}`},
    {head: "Phase", name: true, cell: (o) =>
        (o.error && o.error.message) || o.phase || ""}], operations, false);
}

function eventList(events) {
  if (!events.length) return el("p", {class: "note"}, "None.");
  return el("ul", {class: "events"}, events.map((event) => el("li", {},
    el("span", {class: "muted mono"}, timeText(event.createTime)), " ",
    el("span", {class: isWarning(event) ? "warn" : "ok"},
       event.reason || ""), " ", resourceLink(event.resource), " ",
    event.message || "")));
}

const latest = (collection, wanted, count) =>
    store.sorted(collection).filter(wanted).slice(-count).reverse();

// A part of a view that is drawn again when what it shows has changed.
class Part {
  constructor(title) {
    this.body = el("div", {});
    this.element = section(title, this.body);
    this.shown = undefined;
  }

  // `data`: all that `draw` uses; drawn once for the same.
  show(data, draw) {
    const text = JSON.stringify(data);
    if (text === this.shown) return;
    this.shown = text;
    // What had the focus has it afterwards, if it is still there.
    const focused = document.activeElement;
    const href = this.body.contains(focused) && focused.getAttribute("href");
    this.body.replaceChildren(...[draw(data)].flat(Infinity)
        .filter((one) => one));
    const again = href && [...this.body.querySelectorAll("a")]
        .find((link) => link.getAttribute("href") === href);
    if (again) again.focus();
  }

  fail(error) {
    this.show({error: error.message}, ({error: text}) =>
        el("p", {class: "bad"}, `The coordinator says: ${text}`));
  }
}

class Overview {
  constructor() {
    this.grid = new WorkerGrid();
    this.deployments = new Part("Deployments");
    this.operations = new Part("Operations");
    this.events = new Part("Events");
    this.element = el("div", {}, el("h1", {}, "Cluster"), this.grid.element,
        this.deployments.element, el("div", {class: "columns"},
            this.operations.element, this.events.element));
    this.title = "Cluster";
  }

  update() {
    this.grid.update();
    this.deployments.show(store.sorted("deployments"), deploymentTable);
    this.operations.show(latest("operations", () => true, 20), operationTable);
    this.events.show(latest("events", () => true, 50), eventList);
  }

  close() {}
}

class WorkerView {
  constructor(id) {
    this.name = `workers/${id}`;
    this.title = this.name;
    this.facts = new Part("Worker");
    this.events = new Part("Events");
    this.element = el("div", {}, el("h1", {class: "mono"}, this.name),
                      this.facts.element, this.events.element);
  }

  update() {
    const worker = store.items.workers.get(this.name);
    this.facts.show(worker || null, (w) => !w
        ? el("p", {class: "note"}, "There is no such worker.")
        : facts([
            ["State", stateText(w)], ["Why", w.stateReason],
            ["Since", timeText(w.stateTime)],
            ["Serves", w.deployment && [resourceLink(w.deployment),
                                        `, rank ${w.rank || 0}`]],
            ["Device", w.device], ["Address", w.address],
            ["Metrics", w.httpAddress], ["Incarnation", w.incarnation],
            ["Uid", w.uid]]));
    this.events.show(latest("events", (e) => e.resource === this.name, 50),
                     eventList);
  }

  close() {}
}
