// One deployment.
const DEPLOYMENT_FIELDS = [
  "name", "uid", "create_time", "update_time", "labels", "state",
  "state_reason", "mesh", "plan", "plan_mesh_dim", "src_data_rank", "seed",
  "strict", "last_step", "epoch", "workers", "programs", "module_name",
  "data_parallel", "operation", "recompute", "module.modules.fqn",
  "module.modules.type", "module.parameters.fqn", "module.parameters.buffer",
  "module.parameters.alias_of", "report.assignments", "report.diagnostics",
  "report.collectives", "report.memory", "report.parameters",
  "report.module_collectives"].join(",");
const PROGRAM_FIELDS = ["name", "report.collectives", "report.memory",
                        "report.module_collectives", "report.flops"].join(",");
const KEPT_STEPS = 4096;

// {colwise: {...}, meshDim: "tp"} -> "colwise on tp"
function styleText(style) {
  const kind = Object.keys(style).find((key) => key !== "meshDim") || "none";
  return (kind === "unknown" ? style.unknown : kind) +
         (style.meshDim ? ` on ${style.meshDim}` : "");
}

function planRows(plan, path = "") {
  return ((plan && plan.entries) || []).flatMap((entry) => {
    const pattern = [path, entry.pattern].filter(Boolean).join(" . ") || '""';
    const value = entry.value || {};
    if (value.plan) return planRows(value.plan, pattern);
    const styles = value.style ? [value.style]
        : (value.styles && value.styles.styles) || [];
    return [{pattern, style: styles.map(styleText).join(", ") || "none"}];
  });
}

function reportView({diagnostics, plan, assignments}) {
  const count = (severity) => diagnostics.filter(
      (d) => enumText(d.severity) === severity).length;
  return [
    el("p", {}, [[assignments, "assignment"], [count("WARNING"), "warning"],
                 [count("NOTE"), "note"]].map(([n, what]) =>
        `${n} ${what}${n === 1 ? "" : "s"}`).join(", ") + "."),
    diagnostics.length > 0 && el("ul", {class: "events"},
      diagnostics.map((d) => el("li", {},
        el("span", {class: isWarning(d) ? "warn" : "muted"},
           d.reason || enumText(d.severity)), " ", d.message || ""))),
    plan.length ? table("Plan", [
      {head: "Pattern", name: true, cell: (row) =>
          el("code", {}, row.pattern)},
      {head: "Style", name: true, cell: (row) => row.style}], plan)
        : el("p", {class: "note"}, "No plan: nothing is cut by one.")];
}

function collectivesView({modules, totals}) {
  if (!totals.length) return el("p", {class: "note"}, "None are planned.");
  const rows = foldRows(modules, (row) => [row.phase, row.kind, row.meshDim,
                                           row.times, row.bytes, row.why]);
  const bytes = (row) => Number(row.bytes || 0) * row.count;
  // foldRows counts lines; how often each runs is a factor of its own.
  const most = rows.reduce((a, row) => Math.max(a, bytes(row)), 1);
  return [
    table("Of one run, on rank 0", [
      {head: "Phase", cell: (c) => c.phase},
      {head: "Kind", cell: (c) => c.kind},
      {head: "Count", number: true, cell: (c) => countText(c.count)},
      {head: "Bytes", number: true, cell: (c) => bytesText(c.bytes)}], totals),
    rows.length > 0 && table("By layer", [
      {head: "Layer", name: true, cell: (row) => el("code", {},
          row.count > 1 ? `${row.fqn} ×${row.count}` : row.fqn)},
      {head: "Phase", cell: (row) => row.phase},
      {head: "Kind", cell: (row) => `${row.kind}[${row.meshDim || ""}]`},
      {head: "Count", number: true, cell: (row) =>
          countText(row.times * row.count)},
      {head: "Bytes", number: true, cell: (row) => bytesText(bytes(row))},
      {head: "", cell: (row) => bar(bytes(row) / most)},
      {head: "Why", name: true, cell: (row) => row.why || ""}], rows)];
}

// Ranks that need the same are one line.
function memoryView(memory) {
  if (!memory.length) return el("p", {class: "note"}, "Not known.");
  const lines = new Map();
  for (const {rank = 0, ...rest} of memory) {
    const key = JSON.stringify(rest);
    if (!lines.has(key)) lines.set(key, {...rest, ranks: []});
    lines.get(key).ranks.push(rank);
  }
  const bytes = (head, field) => ({head, number: true,
                                   cell: (row) => bytesText(row[field])});
  const held = (row) => ["parameterBytes", "gradientBytes", "bufferBytes",
                         "peakRunBytes"].reduce(
      (sum, field) => sum + Number(row[field] || 0), 0);
  const rows = [...lines.values()];
  const most = rows.reduce((a, row) => Math.max(a, held(row)), 1);
  return table("As predicted, without an optimizer's state", [
    {head: "Ranks", name: true, cell: (row) => rangesText(row.ranks)},
    bytes("Parameters", "parameterBytes"), bytes("Gradients", "gradientBytes"),
    bytes("Buffers", "bufferBytes"),
    bytes("Activations, peak", "peakActivationBytes"),
    bytes("Run, peak", "peakRunBytes"),
    {head: "", cell: (row) => bar(held(row) / most)}], rows);
}

function programTable(programs) {
  if (!programs.length) return el("p", {class: "note"}, "None yet.");
  const types = (specs) =>
      (specs || []).map((spec) => typeText(spec.type)).join(", ");
  return table("Programs", [
    {head: "Name", name: true, cell: (p) => lastToken(p.name)},
    {head: "Inputs", name: true, cell: (p) => types(p.inputs)},
    {head: "Outputs", name: true, cell: (p) => types(p.outputs)},
    {head: "Loss", cell: (p) => p.hasLoss ? "yes" : "no"},
    {head: "Since", cell: (p) => timeText(p.createTime)}], programs, false);
}

function stepTable(steps) {
  if (!steps.length) return null;
  return table("The last steps", [
    {head: "Step", number: true, cell: (s) => String(s.number)},
    {head: "Loss", number: true, cell: (s) => {
      const loss = scalarOf(s.loss);
      return loss === undefined ? "" : numberText(loss);
    }},
    {head: "Gradient norm", number: true, cell: (s) =>
        s.gradientNorm === undefined ? "" : numberText(s.gradientNorm)},
    {head: "Time", number: true, cell: (s) =>
        secondsText(s.durationSeconds || 0)}], steps.slice(-10).reverse());
}

class DeploymentView {
  constructor(id) {
    this.name = `deployments/${id}`;
    this.path = `deployments/${encodeURIComponent(id)}`;
    this.title = this.name;
    this.aborter = new AbortController();
    this.steps = [];
    this.detail = null;
    this.parts = Object.fromEntries(
        ["Deployment", "Report and plan", "Loss", "Step split",
         "Collectives by layer", "Memory by rank", "Programs", "Events"].map(
            (title) => [title, new Part(title)]));
    this.treeSection = this.makeTree();
    const part = (title) => this.parts[title].element;
    this.element = el("div", {}, el("h1", {class: "mono"}, this.name),
      el("div", {class: "columns"}, part("Deployment"),
         part("Report and plan")),
      el("div", {class: "columns"}, part("Loss"), part("Step split")),
      this.treeSection, part("Collectives by layer"), part("Memory by rank"),
      el("div", {class: "columns"}, part("Programs"), part("Events")));
  }

  makeTree() {
    this.treeBox = el("div", {});
    this.panel = el("div", {"aria-live": "off"},
        el("p", {class: "note"}, "Choose a parameter to see its tiles."));
    const filter = el("input", {type: "search", "data-filter": true,
      placeholder: "Filter modules", "aria-label": "Filter modules by name",
      input: () => {
        this.tree.filter = filter.value;
        this.tree.refresh();
      }});
    const fold = el("button", {type: "button", "aria-pressed": "true",
      click: () => {
        this.tree.folded = !this.tree.folded;
        fold.setAttribute("aria-pressed", String(this.tree.folded));
        this.tree.refresh();
      }}, "Fold equal layers");
    return section("Modules", el("div", {class: "row"}, filter, fold),
                   el("div", {class: "columns"}, this.treeBox, this.panel));
  }

  showTree() {
    if (this.tree) {
      this.tree.setDeployment(this.detail);
      return;
    }
    this.tree = new TreeView(this.detail,
                             (parameter) => this.showParameter(parameter));
    this.treeBox.replaceChildren(this.tree.box);
    this.tree.draw();
    const all = (this.detail.report || {}).parameters || [];
    const cut = all.find((one) => (one.text || "").includes("S(")) || all[0];
    if (cut) this.showParameter(cut);
  }

  showParameter(parameter) {
    if (this.parameter === parameter.name) return;
    this.parameter = parameter.name;
    this.panel.replaceChildren(...parameterPanel(parameter, this.detail)
        .flat(Infinity).filter((one) => one));
  }

  update() {
    const known = store.items.deployments.get(this.name);
    const summary = known || this.detail;
    this.parts.Deployment.show(summary || null, (d) => this.summary(d));
    this.parts.Events.show(
        latest("events", (e) => e.resource === this.name, 50), eventList);
    if (!known) return;
    const key = JSON.stringify([known.uid, known.state, known.epoch,
                                known.programs]);
    if (key !== this.key) {
      this.key = key;
      this.loadDetail();
    }
    if (String(known.lastStep || 0) !== this.lastStep ||
        known.uid !== this.uid) {
      if (known.uid !== this.uid) this.steps = [];
      this.uid = known.uid;
      this.lastStep = String(known.lastStep || 0);
      this.loadSteps();
    }
  }

  summary(d) {
    if (!d) return el("p", {class: "note"}, "There is no such deployment.");
    const workers = d.workers || [];
    return facts([
      ["State", stateText(d)], ["Why", d.stateReason],
      ["Mesh", `${meshText(d.mesh)}, ${ranksOf(d.mesh)} ranks`],
      ["Last step", countText(d.lastStep)],
      ["Module", d.moduleName],
      ["Labels", Object.entries(d.labels || {})
          .map(([key, value]) => `${key}=${value}`).join(", ")],
      ["Epoch", d.epoch], ["Since", timeText(d.createTime)], ["Uid", d.uid],
      ["Workers", workers.slice(0, 16).map((name, rank) =>
          [rank ? ", " : "", el("a", {href: workerHref(name)},
                                lastToken(name))])
          .concat(workers.length > 16
              ? ` and ${workers.length - 16} more` : [])]]);
  }

  async loadDetail() {
    const {signal} = this.aborter;
    try {
      this.detail = await get(this.path, {fields: DEPLOYMENT_FIELDS}, signal);
      const programs = await getAll(`${this.path}/programs`, "programs", {},
                                    1000, signal);
      // The program that came last says most of what a run costs.
      const last = programs.at(-1);
      const program = last && await get(
          `${this.path}/programs/${encodeURIComponent(lastToken(last.name))}`,
          {fields: PROGRAM_FIELDS}, signal);
      if (!signal.aborted) this.showDetail(programs, program);
    } catch (error) {
      if (signal.aborted) return;
      this.key = undefined;
      this.parts["Report and plan"].fail(error);
    }
  }

  showDetail(programs, program) {
    const own = this.detail.report || {};
    const run = (program && program.report) || own;
    this.parts["Report and plan"].show({
      diagnostics: own.diagnostics || [], plan: planRows(this.detail.plan),
      assignments: (own.assignments || []).length}, reportView);
    this.parts["Collectives by layer"].show({
      modules: (run.moduleCollectives || []).map(
          ({count, ...row}) => ({...row, times: Number(count || 0)})),
      totals: run.collectives || []}, collectivesView);
    this.parts["Memory by rank"].show(run.memory || own.memory || [],
                                      memoryView);
    this.parts.Programs.show(programs, programTable);
    this.showTree();
  }

  // One at a time: what comes meanwhile is asked for afterwards.
  async loadSteps() {
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    const {signal} = this.aborter;
    try {
      const last = this.steps.at(-1);
      const steps = await getAll(`${this.path}/steps`, "steps",
          {after: last ? last.number : 0}, KEPT_STEPS, signal);
      this.steps = this.steps.concat(steps).slice(-KEPT_STEPS);
      this.showSteps();
    } catch (error) {
      if (signal.aborted) return;
      this.parts.Loss.fail(error);
      this.parts["Step split"].fail(error);
    } finally {
      this.loading = false;
      if (this.again && !signal.aborted) {
        this.again = false;
        this.loadSteps();
      }
    }
  }

  showSteps() {
    const steps = this.steps;
    const key = [this.uid, steps.length, steps.length && steps.at(-1).number];
    this.parts.Loss.show(key, () => [lossChart(steps), stepTable(steps)]);
    this.parts["Step split"].show(key, () => splitChart(steps));
  }

  close() {
    this.aborter.abort();
    if (this.tree) this.tree.resized.disconnect();
  }
}
