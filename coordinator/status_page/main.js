// Which view is shown, keys, theme.
const byId = (id) => document.getElementById(id);
const KEYS = [
  ["?", "Shows these keys"], ["/", "Goes to the filter"],
  ["u", "Up to the overview"], ["t", "Next theme: auto, light, dark"],
  ["Esc", "Leaves the filter, or this list"],
  ["Arrow keys", "In the workers, the tree, tiles and the loss curve"],
  ["Enter", "Opens what is chosen"],
  ["*", "In the tree: opens all beside"],
  ["Home, End", "First and last"],
];
const THEMES = ["auto", "light", "dark"];

let view = null;

function viewOf(hash) {
  const [kind, id] = hash.replace(/^#\/?/, "").split("/");
  let name = "";
  try {
    name = decodeURIComponent(id || "");
  } catch {
    name = id;  // not what encodeURIComponent writes: as it is
  }
  if (kind === "deployments" && name) return new DeploymentView(name);
  if (kind === "workers" && name) return new WorkerView(name);
  return new Overview();
}

function route() {
  if (location.hash && !location.hash.startsWith("#/")) return;
  const moved = view !== null;
  if (view) view.close();
  view = viewOf(location.hash);
  byId("main").replaceChildren(view.element);
  document.title = `${view.title} – Shardplane`;
  byId("crumbs").replaceChildren(...(view instanceof Overview ? []
      : [el("a", {href: "#/"}, "Cluster"), ` / ${view.title}`]));
  view.update();
  if (moved) {
    scrollTo(0, 0);
    byId("main").focus({preventScroll: true});
  }
}

function showLive() {
  const box = byId("live");
  setAttributes(box, {class: store.live ? "live ok" : "live stale"});
  setText(box, store.live ? "Live"
      : `Stale since ${store.stale.since.toLocaleTimeString("sv-SE")}: ` +
        store.stale.why);
}

// The theme in which the page is shown, of that which was chosen.
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";

function showTheme() {
  const dark = theme === "dark" || (theme === "auto" && prefersDark.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  setText(byId("theme"), `Theme: ${theme}`);
}

function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try {
    localStorage.setItem("shardplane-theme", theme);
  } catch {
    // Storage may be forbidden: the choice then lasts as long as the page.
  }
  showTheme();
}

function startTheme() {
  try {
    const kept = localStorage.getItem("shardplane-theme");
    if (THEMES.includes(kept)) theme = kept;
  } catch {
    // As above: the system's theme.
  }
  prefersDark.addEventListener("change", showTheme);
  byId("theme").addEventListener("click", nextTheme);
  showTheme();
}

function showKeys() {
  if (!byId("keys").open) byId("keys").showModal();
}

const ACTIONS = {
  "?": showKeys,
  "/": () => {
    const filter = document.querySelector("[data-filter]");
    if (filter) filter.focus();
  },
  u: () => { location.hash = "#/"; },
  t: nextTheme,
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape" && typing) event.target.blur();
  const act = ACTIONS[event.key];
  if (!act || typing || byId("keys").open) return;
  event.preventDefault();
  act();
}

function start() {
  startTheme();
  byId("key-list").append(...KEYS.flatMap(([key, what]) =>
      [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)]));
  byId("help").addEventListener("click", showKeys);
  addEventListener("keydown", onKey);
  addEventListener("hashchange", route);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
  store.listeners.add(() => {
    showLive();
    view.update();
  });
  route();
  showLive();
  follow();
}

start();
