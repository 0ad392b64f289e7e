// What the coordinator says, and what the page knows of it.
class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body.message || `HTTP ${status}`);
    this.status = status;
    this.code = body.code || 0;
    this.retryAfter = retryAfter;
  }
}
const OUT_OF_RANGE = 11;

async function get(path, parameters = {}, signal) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) query.append(name, one);
  }
  const response = await fetch(`/v1/${path}?${query}`,
                               {signal, cache: "no-store"});
  if (response.ok) return response.json();
  const body = await response.json().catch(() => ({}));
  throw new ApiError(response.status, body,
                     Number(response.headers.get("Retry-After") || 0));
}

// All pages of a list, at most `limit` of its items.
async function getAll(path, field, parameters = {}, limit = 10000, signal) {
  const items = [];
  let token = "";
  do {
    const page = await get(path, {...parameters, page_size: 1000,
                                  page_token: token}, signal);
    items.push(...(page[field] || []));
    token = page.nextPageToken || "";
  } while (token && items.length < limit);
  return items;
}

const WATCHED = {workers: "worker", deployments: "deployment",
                 operations: "operation", events: "event"};
const KEPT_EVENTS = 200;
const WAIT_MS = 20000;

// What is watched, by name. `live`: the last answer is from now; else `stale`
// says since when, and why.
class Store {
  constructor() {
    this.items = {workers: new Map(), deployments: new Map(),
                  operations: new Map(), events: new Map()};
    this.version = "";
    this.live = false;
    this.stale = {since: new Date(), why: "connecting"};
    this.listeners = new Set();
    this.planned = false;
  }

  // Many changes are drawn once.
  changed() {
    if (this.planned) return;
    this.planned = true;
    setTimeout(() => {
      this.planned = false;
      for (const listener of this.listeners) listener();
    }, 50);
  }

  apply(events, anew) {
    if (anew) for (const map of Object.values(this.items)) map.clear();
    for (const event of events) {
      this.version = event.version || this.version;
      for (const [collection, field] of Object.entries(WATCHED)) {
        const item = event[field];
        if (!item) continue;
        if (event.type === "TYPE_DELETED") {
          this.items[collection].delete(item.name);
        } else {
          this.items[collection].set(item.name, item);
        }
      }
    }
    const {events: kept} = this.items;
    for (const name of kept.keys()) {
      if (kept.size <= KEPT_EVENTS) break;
      kept.delete(name);
    }
  }

  sorted(collection) {
    return [...this.items[collection].values()].sort((a, b) =>
        a.name.localeCompare(b.name, "en", {numeric: true}));
  }

  setLive() {
    this.live = true;
    this.changed();
  }

  setStale(why) {
    if (this.live) this.stale.since = new Date();
    this.stale.why = why;
    this.live = false;
    this.changed();
  }
}

const store = new Store();

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Until the page can be seen: one that nobody looks at takes no connection.
function shown() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener(
      "visibilitychange", resolve, {once: true})).then(shown);
}

// One poll: returns when something has changed, or nothing has for a while.
async function poll() {
  const anew = store.version === "";
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), WAIT_MS + 10000);
  const hide = () => document.hidden && giveUp.abort();
  document.addEventListener("visibilitychange", hide);
  try {
    const answer = await get("watch", {
      collections: Object.keys(WATCHED), resume_version: store.version,
      wait_ms: WAIT_MS}, giveUp.signal);
    store.apply(answer.events || [], anew);
    store.setLive();
  } finally {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", hide);
  }
}

// Follows the cluster for as long as the page is there. Failures wait longer
// each time, by chance, so that many pages do not come back at once.
async function follow() {
  for (let failures = 0;;) {
    if (document.hidden) store.setStale("not looked at");
    await shown();
    try {
      await poll();
      failures = 0;
      await pause(250);
    } catch (error) {
      if (document.hidden) continue;
      if (error.code === OUT_OF_RANGE) store.version = "";
      store.setStale(error.message);
      failures = Math.min(failures + 1, 5);
      await pause(Math.max(1000 * (error.retryAfter || 0),
                           250 * 2 ** failures * (.5 + Math.random())));
    }
  }
}
