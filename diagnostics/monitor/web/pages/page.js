// The page of the monitor: one event a second brings everything; nothing is kept but the points of the timeline.
"use strict";

const PARTS = ["python_live", "python_free", "malloc_live", "malloc_free", "mapped_files", "stacks", "tracers", "other"];
const NAMES = {
  python_live: "Python, live", python_free: "Python, free", malloc_live: "malloc, live", malloc_free: "malloc, free",
  mapped_files: "mapped files", stacks: "stacks", tracers: "tracers", other: "other",
};
const LINES = [["RSS", "rss"], ["in use", "used"], ["buffered by streams", "held"]];
const KEPT_SECONDS = 900;
const ENDED = ["done", "failed", "cancelled", "broken"];
// A loop that is late by less is busy.
const BLOCKED_SECONDS = 1;
// Who looks at a page must be told when it is not right any more.
const LATE_SECONDS = 5;
// The recorder looks at a live heap about so often.
const HEAP_SECONDS = 5;
const CHART_LEFT = 62;

const state = { worker: null, told: null, points: [], heard: null, captures: "", estimates: false, workers: "", since: null, heapAsked: 0 };
const $ = (id) => document.getElementById(id);

// ---- small things

function element(name, content, attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (Array.isArray(content)) made.append(...content);
  else if (content !== undefined && content !== null) made.textContent = content;
  return made;
}

// New children, and the keyboard stays where it was: on what has the same key, else on what took its place, else near by.
function replace(into, children) {
  const keyed = () => [...into.querySelectorAll("[data-key]")];
  const place = keyed().indexOf(document.activeElement), key = document.activeElement?.dataset.key;
  into.replaceChildren(...children);
  if (place < 0) return;
  const now = keyed();
  const next = now.find((each) => each.dataset.key === key) ?? now[Math.min(place, now.length - 1)];
  (next ?? into.parentElement.querySelector("button"))?.focus();
}

function show(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function size(bytes, unknown = "–") {
  if (bytes === null || bytes === undefined) return unknown;
  if (Math.abs(bytes) < 1024) return `${bytes} B`;
  let value = bytes;
  for (const unit of ["KiB", "MiB", "GiB", "TiB"]) {
    value /= 1024;
    if (Math.abs(value) < 1023.95 || unit === "TiB") return `${value.toFixed(Math.abs(value) < 10 ? 2 : 1)} ${unit}`;
  }
  return "";
}

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

const clock = (time) => new Date(time * 1000).toLocaleTimeString([], { hour12: false });

async function ask(path, options) {
  const response = await fetch(path, { headers: { accept: "application/json", ...(options?.headers || {}) }, ...options });
  if (response.status === 204) return null;
  const told = await response.json();
  if (!response.ok) throw new Error([told.error.message, told.error.remedy].filter(Boolean).join("; "));
  return told;
}

// ---- what is shown

function render(told) {
  state.told = told;
  state.heard = Date.now();
  renderWorkers(told.workers);
  const worker = told.workers.find((each) => each.worker === state.worker);
  if (!worker) {
    const there = [...(told.service?.supervisors ?? []), ...(told.service?.children ?? [])].map((each) => `${each.role} ${each.program} (pid ${each.pid})`);
    trouble(there.length ? `No worker serves now. There is ${there.join(", ")}.` : "No worker is there. Start the service with: diagnostics run -- CMD");
    renderProcesses(told.service);
    return;
  }
  trouble(worker.state === "silent"
    ? `The agent has not answered since ${clock(worker.silent_since)} (${span(told.time - worker.silent_since)}): ${worker.reason}`
    : worker.state === "outside" ? `Read from outside only: ${worker.reason}`
    : worker.loop_pending_seconds >= BLOCKED_SECONDS ? `The event loop is blocked: it has not come to its work for ${span(worker.loop_pending_seconds)}, and no stream goes on` : "");
  const process = worker.process;
  show("vitals", `pid ${worker.pid} · Python ${worker.python || "?"} · ${process.threads} threads · ${process.fds ?? "?"} descriptors`);
  renderVerdict(worker.verdict);
  renderEnds(told);
  renderBalance(worker);
  addPoint(told.time, worker);
  renderChart(worker, told.captures);
  renderHeap(worker);
  renderStreams(worker);
  renderTasks(worker, told);
  renderProcesses(told.service);
  renderRules(told);
  renderCaptures(told.captures);
  if (!state.estimates) loadEstimates();
}

function trouble(text) {
  $("trouble").hidden = !text;
  show("trouble", text);
}

function renderWorkers(workers) {
  if (!workers.some((each) => each.worker === state.worker)) choose(workers[0]?.worker ?? null);
  const key = workers.map((each) => each.worker).join() + state.worker;
  if (key === state.workers) return;
  state.workers = key;
  replace($("workers"), workers.length < 2 ? [] : workers.map((each) => {
    const button = element("button", `worker ${each.worker}`, { type: "button", "aria-pressed": each.worker === state.worker, "data-key": each.worker });
    button.addEventListener("click", () => { choose(each.worker); render(state.told); });
    return button;
  }));
}

function choose(worker) {
  state.worker = worker;
  state.points = [];
  state.estimates = false;
  if (worker !== null) loadTimeline(worker);
}

// How the last life ended, before what its successor looks like; and what grows beside the workers, which no worker's verdict tells.
function renderEnds(told) {
  const [end] = told.ends ?? [];
  const whole = told.service?.verdict;
  const words = [];
  if (end) words.push(`Worker ${end.worker} (pid ${end.pid}) ended at ${clock(end.time)}. ${end.said}`);
  if (end?.verdict) words.push(`Its last verdict: ${end.verdict}`);
  for (const line of end?.lines ?? []) {
    const { low, mid, high } = line.grown_bytes;
    words.push(`In its live heap ${line.name} gained ${size(mid)} in ${Math.round(line.seconds)} s (95 % sure: ${size(low)} to ${size(high)}).`);
  }
  if (end?.file) words.push(`Recorded: diagnostics blackbox ${end.file}`);
  if (whole?.alarm) words.push(`The service as a whole: ${whole.says}`);
  show("ends", words.join(" "));
  $("ends").hidden = !words.length;
  const attached = (told.attached ?? []).map((one) =>
    `Attached to process ${one.pid} since ${one.since} by ${one.how}, uid ${one.uid}${one.agent ? "" : "; its agent is no longer there"}.`);
  show("attached", attached.join(" "));
  $("attached").hidden = !attached.length;
}

function renderVerdict(verdict) {
  $("verdict").className = `card verdict ${verdict.alarm ? "alarm" : verdict.verdict === "inconclusive" ? "" : "calm"}`;
  show("confidence", verdict.verdict === "inconclusive" ? "" : `· confidence ${verdict.confidence}`);
  show("verdict-title", verdict.layer ? `${verdict.title}: ${verdict.layer} layer` : verdict.title);
  show("says", verdict.says);
  show("also", verdict.also.length ? `Also: ${verdict.also.map((other) => other.says).join(" ")}` : "");
  $("evidence").replaceChildren(...verdict.evidence.slice(0, 7).map((one) => {
    const cut = one.text.lastIndexOf(": ");
    return element("li", [element("span", one.text.slice(0, cut)), element("b", one.text.slice(cut + 2))]);
  }));
  show("next", verdict.next);
  show("fix", verdict.fix);
  show("docs", verdict.docs);
}

function renderBalance(worker) {
  const balance = worker.balance;
  show("rss", size(worker.memory.rss_bytes) + " resident" + (balance?.cgroup?.limit_bytes ? ` of a limit of ${size(balance.cgroup.limit_bytes)}` : ""));
  if (!balance) {
    $("bar").replaceChildren();
    show("beside", "The kernel does not tell where it is.");
    return;
  }
  const known = PARTS.map((part, at) => [part, at, balance.parts[part]]);
  $("bar").replaceChildren(...known.filter(([, , held]) => held > 0).map(([part, at, held]) => {
    const segment = element("div", null, { class: `p${at}`, title: `${NAMES[part]}: ${size(held)}` });
    segment.style.flexGrow = held;
    return segment;
  }));
  $("bar").setAttribute("aria-label", known.map(([part, , held]) => `${NAMES[part]} ${held === null ? "unknown" : size(held)}`).join(", "));
  $("parts").replaceChildren(...known.map(([part, at, held]) =>
    element("li", [element("i", null, { class: `p${at}` }), element("span", NAMES[part]), element("b", held === null ? "unknown" : size(held))])));
  const beside = Object.entries(balance.beside).filter(([, held]) => held > 0);
  const own = `Private ${size(balance.private_bytes, "unknown")}, PSS ${size(balance.pss_bytes, "unknown")}.`;
  const why = Object.entries(balance.unknown ?? {}).map(([name, says]) => `${NAMES[name] ?? name} unknown: ${says}`);
  show("own", [own, ...why].join(" "));
  show("beside", beside.length ? `Beside it: ${beside.map(([name, held]) => `${name.replaceAll("_", " ")} ${size(held)}`).join(", ")}` : "");
}

function renderStreams(worker) {
  const rows = worker.streams;
  const open = worker.ledger?.open ?? worker.connections?.open;
  show("open", open === undefined || open === null ? "" : `${open} open` + (rows.length >= open ? "" : rows.length ? `, the ${rows.length} that hold most` : ", not known one by one"));
  show("unknown", (worker.connections?.unknown ?? []).join("; "));
  $("streams").replaceChildren(...rows.map((row) => element("tr", [
    element("td", row.id ?? "–", { class: "n" }),
    element("td", row.route),
    element("td", row.state ?? "–", { class: `word ${row.state ?? ""}` }),
    element("td", span(row.age_seconds), { class: "n" }),
    ...[row.held_bytes, row.buffered_bytes, row.transport_bytes, row.kernel_bytes, row.retained_bytes].map((held) => element("td", size(held), { class: "n" })),
    element("td", [element("code", row.trace_id ? row.trace_id.slice(0, 16) : "–", { title: row.trace_id ?? "" })]),
  ])));
}

function renderTasks(worker, told) {
  const states = Object.entries(worker.task_states || {}).map(([name, count]) => `${count} ${name}`);
  show("tasks", states.join(", ") || (worker.tasks === null ? `unknown${worker.unknown?.tasks ? `: ${worker.unknown.tasks}` : ""}` : String(worker.tasks)));
  const last = worker.task_groups;
  $("groups").replaceChildren(...(last?.top || []).slice(0, 4).map((row) => element("tr", [
    element("td", row.count, { class: "n" }), element("td", [element("code", row.task || row.name)]),
    element("td", row.waits_in), element("td", row.orphan ? "not awaited" : "", { class: "quiet word" }),
  ])));
  show("groups-time", last ? "As the last capture of kind tasks saw them." : "A capture of kind tasks shows where they wait.");
}

// What each line of the code holds by the live heap. What is judged comes with every event; another span is asked for.
const NO_HEAP = "it keeps no live heap";

function renderHeap(worker) {
  const judged = worker.lines;
  $("heap").hidden = !judged || (judged.unknown ?? "").startsWith(NO_HEAP);
  if ($("heap").hidden) return;
  if (!state.since) showHeap(judged);
  else if (Date.now() - state.heapAsked > HEAP_SECONDS * 1000) loadHeap(worker.worker);
}

async function loadHeap(worker) {
  state.heapAsked = Date.now();
  const since = state.since;
  try {
    const seconds = Math.max(1, since < 0 ? -since : Date.now() / 1000 - since);
    const told = await ask(`/debug/memory/lines?seconds=${seconds}&limit=12&worker=${encodeURIComponent(worker)}`);
    if (state.since === since && state.worker === worker) showHeap(told);
  } catch (error) {
    show("heap-unknown", error.message);
  }
}

function showHeap(told) {
  show("heap-since", told.since ? `since ${clock(told.since)}, ${span(told.seconds)}${told.lives > 1 ? ` of ${told.lives} processes` : ""}` : "");
  show("heap-unknown", told.unknown ? `Unknown: ${told.unknown}` : "");
  const signed = (bytes) => `${bytes > 0 ? "+" : ""}${size(Math.round(bytes))}`;
  const between = (one, words) => `${words(one.low)} to ${words(one.high)}`;
  const plain = (bytes) => size(Math.round(bytes));
  $("heap-lines").replaceChildren(...told.rows.map((row) => element("tr", [
    element("td", [element("code", row.in ? `${row.name}, in ${row.in}` : row.name, { title: `${row.file}:${row.line}` })]),
    element("td", plain(row.held_bytes.mid), { class: "n" }),
    element("td", between(row.held_bytes, plain), { class: "n" }),
    element("td", signed(row.grown_bytes.mid), { class: row.grows ? "n blocked" : "n" }),
    element("td", between(row.grown_bytes, signed), { class: "n" }),
    element("td", row.grows ? signed(row.per_hour.mid) : "–", { class: "n" }),
  ])));
}

// Below zero: so many seconds ago, whenever that is; above: a moment.
function heapSince(since) {
  state.since = since;
  state.heapAsked = 0;
  if (state.told) render(state.told);
}

// All processes of the service: what it takes as a whole, who supervises, and children that serve nothing.
function renderProcesses(service) {
  if (!service) return;
  show("whole", `${service.count} processes, PSS ${size(service.pss_bytes, "unknown")}, RSS ${size(service.rss_bytes)}`);
  const reasons = Object.entries(service.unknown).map(([name, why]) => `${name.replaceAll("_", " ")} unknown: ${why}`);
  show("whole-says", [`${service.verdict.title}: ${service.verdict.says}`, ...reasons].join(" "));
  const rows = [...service.supervisors, ...service.children];
  $("processes-head").hidden = !rows.length;
  $("processes").replaceChildren(...rows.slice(0, 12).map((row) => element("tr", [
    element("td", row.pid, { class: "n" }), element("td", [element("code", row.program)]),
    element("td", row.worker === null ? row.role : `${row.role} of worker ${row.worker}`, { title: row.reason ?? "" }),
    ...[row.rss_bytes, row.pss_bytes, row.private_bytes].map((held) => element("td", size(held, "unknown"), { class: "n" })),
  ])));
}

function doneBy(rule) {
  const words = rule.actions.map((action) => action.do === "capture" ? `captures ${action.kind}` : action.do);
  return words.join(", ") || "logs";
}

function renderRules(told) {
  const fired = told.firings.slice(0, 4).map((one) => element("li", [
    element("b", one.rule), element("span", `${clock(one.time)}, worker ${one.worker}: ${one.says}`), element("span", one.outcome),
  ]));
  const rules = told.rules.map((rule) => element("li", [
    element("b", rule.name), element("span", rule.says), element("span", doneBy(rule)),
  ]));
  $("rules").replaceChildren(...fired, ...rules);
}

// ---- captures

async function loadEstimates() {
  state.estimates = true;
  try {
    const told = await ask(`/debug/memory/estimates?worker=${encodeURIComponent(state.worker)}`);
    renderButtons(told.estimates);
  } catch (error) {
    $("buttons").replaceChildren();
    show("refused", error.message);
  }
}

function renderButtons(estimates) {
  replace($("buttons"), Object.entries(estimates).map(([kind, cost]) => {
    const says = cost.refusal ? `refused now: ${cost.refusal}` : [
      `stalls ${cost.stall_ms.toFixed(0)} ms`, cost.slowdown > 1 ? `${cost.likely_slowdown.toFixed(1)}× CPU (at worst ${cost.slowdown.toFixed(1)}×)` : "", `+${size(cost.memory_bytes)}`,
    ].filter(Boolean).join(", ");
    const button = element("button", [kind, element("small", says)], { type: "button", "data-key": kind });
    button.disabled = cost.refusal !== null;
    button.addEventListener("click", () => begin(kind));
    return button;
  }));
}

async function begin(kind) {
  show("refused", "");
  try {
    await ask("/debug/memory/captures", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ kind, worker: state.worker }),
    });
  } catch (error) {
    show("refused", error.message);
  }
}

async function remove(id) {
  try {
    await ask(`/debug/memory/captures/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    show("refused", error.message);
  }
}

function renderCaptures(captures) {
  const stored = (one) => (one.egress ? `store: ${one.egress.state}${one.egress.error ? `, ${one.egress.error}` : ""}` : "");
  const key = captures.map((one) => one.id + one.state + stored(one)).join();
  for (const one of captures) {
    const bar = document.getElementById(`progress-${one.id}`);
    if (bar) bar.value = one.progress;
  }
  if (key === state.captures) return;
  state.captures = key;
  state.estimates = false;
  replace($("captures"), captures.slice(0, 12).map((one) => {
    const ended = ENDED.includes(one.state);
    const parts = [element("b", one.kind), element("span", `${clock(one.created)}, worker ${one.worker ?? "unknown"}`)];
    if (ended) parts.push(element("span", one.error ? one.error.message : one.state));
    else {
      const bar = element("progress", null, { id: `progress-${one.id}`, max: "1", "aria-label": `${one.kind}: ${one.state}` });
      bar.value = one.progress;
      parts.push(bar, element("span", one.state));
    }
    if (stored(one)) parts.push(element("span", stored(one)));
    for (const name of one.artifacts.filter((each) => each === "flame.html" || each === "flamegraph.html" || each.endsWith(".txt"))) {
      parts.push(element("a", name, { href: `/debug/memory/captures/${encodeURIComponent(one.id)}/artifacts/${encodeURIComponent(name)}`, target: "_blank", rel: "noopener", "data-key": `${one.id} ${name}` }));
    }
    const says = ended ? "Delete" : "Cancel";
    const button = element("button", says, { type: "button", "aria-label": `${says} ${one.kind} capture of ${clock(one.created)}`, "data-key": `${one.id} ${says}` });
    button.addEventListener("click", () => remove(one.id));
    return element("li", [...parts, button]);
  }));
}

// ---- the timeline

async function loadTimeline(worker) {
  try {
    const told = await ask(`/debug/memory/timeline?seconds=${KEPT_SECONDS}&worker=${encodeURIComponent(worker)}`);
    const at = Object.fromEntries(told.fields.map((field, index) => [field.name, index]));
    const get = (row, name) => (at[name] === undefined ? null : row[at[name]]);
    const past = told.rows.map((row) => {
      const layers = ["app", "transport"].map((layer) => get(row, `buffered_${layer}_bytes`)).filter((held) => held !== null);
      return { time: row[0], rss: get(row, "rss_bytes"), used: get(row, "in_use_bytes"), held: layers.length ? layers.reduce((a, b) => a + b, 0) : null };
    });
    if (state.worker === worker) {
      const last = past.at(-1)?.time ?? 0;
      state.points = [...past, ...state.points.filter((point) => point.time > last)];
    }
  } catch (error) {
    // Nothing is recorded: the line begins with this page.
    console.info(error.message);
  }
}

function addPoint(time, worker) {
  if (state.points.length && state.points.at(-1).time >= time) return;
  const of = worker.balance?.of_which;
  const layers = [of?.app, of?.transport].filter((held) => held !== null && held !== undefined);
  state.points.push({
    time, rss: worker.memory.rss_bytes, used: worker.memory.in_use_bytes, held: layers.length ? layers.reduce((a, b) => a + b, 0) : null,
  });
  while (state.points[0].time < time - KEPT_SECONDS) state.points.shift();
}

function line(points, key, x, y) {
  let path = "", pen = "M";
  for (const point of points) {
    if (point[key] === null || point[key] === undefined) { pen = "M"; continue; }
    path += `${pen}${x(point.time).toFixed(1)} ${y(point[key]).toFixed(1)}`;
    pen = "L";
  }
  return path;
}

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// A step of 1, 2 or 5 times a power of ten of the unit, that divides the axis into three to six.
function roundStep(most) {
  const unit = 1024 ** Math.floor(Math.log2(most / 3) / 10), power = 10 ** Math.floor(Math.log10(most / 3 / unit));
  return [5, 2, 1].map((factor) => factor * power * unit).find((step) => step <= most / 3);
}

function renderChart(worker, captures) {
  const points = state.points, chart = $("chart");
  if (points.length < 2) return;
  const width = chart.clientWidth || 640, height = 190, left = CHART_LEFT, top = 12, bottom = 20;
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const from = points[0].time, to = points.at(-1).time;
  const limit = worker.balance?.cgroup?.limit_bytes ?? null;
  const highest = Math.max(...points.map((point) => point.rss || 0));
  // A limit that is far away would press the lines to the floor.
  const shown = limit !== null && limit < 3 * highest;
  const most = Math.max(1, shown ? limit : highest) * 1.08;
  const x = (time) => left + (time - from) / Math.max(1e-3, to - from) * (width - left - 8);
  const y = (bytes) => height - bottom - bytes / most * (height - top - bottom);
  const drawn = [];
  const step = roundStep(most);
  for (let bytes = 0; bytes <= most; bytes += step) {
    drawn.push(shape("line", { class: "grid", x1: left, x2: width - 8, y1: y(bytes), y2: y(bytes) }));
    drawn.push(shape("text", { x: left - 8, y: y(bytes) + 4, "text-anchor": "end" }, bytes ? size(bytes).replace(/\.0+ /, " ") : "0"));
  }
  if (shown) drawn.push(shape("line", { class: "limit", x1: left, x2: width - 8, y1: y(limit), y2: y(limit) }));
  const marked = captures.filter((one) => one.worker === worker.worker && one.created >= from).sort((a, b) => a.created - b.created);
  const labels = [];
  for (const one of marked) {
    const at = x(one.created), last = labels.at(-1);
    drawn.push(shape("line", { class: "mark", x1: at, x2: at, y1: top, y2: height - bottom }));
    // Captures one after the other share a label: beside each other the words would lie on top of each other.
    if (last && at < last.at + 7 * last.kinds.join(", ").length + 10) last.kinds.push(one.kind);
    else labels.push({ at, kinds: [one.kind] });
  }
  for (const { at, kinds } of labels) {
    const text = kinds.length > 4 ? `${kinds.length} captures` : kinds.join(", ");
    const late = at + 7 * text.length > width;
    drawn.push(shape("text", { x: at + (late ? -4 : 4), y: top + 8, "text-anchor": late ? "end" : "start" }, text));
  }
  LINES.forEach(([, key], at) => drawn.push(shape("path", { class: `s${at}`, d: line(points, key, x, y) })));
  drawn.push(shape("text", { x: left, y: height - 4 }, clock(from)));
  drawn.push(shape("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, clock(to)));
  chart.replaceChildren(...drawn);
  const last = points.at(-1);
  chart.setAttribute("aria-label", `Over ${span(to - from)}: RSS from ${size(points[0].rss)} to ${size(last.rss)}, in use from ${size(points[0].used)} to ${size(last.used)}`);
  show("span", span(to - from));
  $("lines").replaceChildren(...LINES.map(([name, key], at) =>
    element("li", [element("i", null, { class: ["p0", "p2", "p5"][at] }), element("span", name), element("b", size(last[key]))])));
}

// ---- life

$("heap-span").addEventListener("change", () => heapSince($("heap-span").value ? -Number($("heap-span").value) : null));
$("chart").addEventListener("click", (event) => {
  if (state.points.length < 2 || $("heap").hidden) return;
  const { left, width } = $("chart").getBoundingClientRect(), from = state.points[0].time, to = state.points.at(-1).time;
  const share = Math.min(1, Math.max(0, (event.clientX - left - CHART_LEFT) / (width - CHART_LEFT - 8)));
  heapSince(from + share * (to - from));
});

$("copy").addEventListener("click", async () => {
  if (!navigator.clipboard) { // a browser gives it to pages of this machine and of HTTPS only
    getSelection().selectAllChildren($("next"));
    return;
  }
  await navigator.clipboard.writeText($("next").textContent);
  show("copy", "Copied");
  setTimeout(() => show("copy", "Copy"), 1500);
});

const events = new EventSource("/debug/memory/events");
events.addEventListener("message", (event) => render(JSON.parse(event.data)));
setInterval(() => {
  const late = state.heard === null ? Infinity : (Date.now() - state.heard) / 1000;
  $("live").classList.toggle("off", late > LATE_SECONDS);
  if (late <= LATE_SECONDS) show("live", "live");
  else if (state.heard !== null) show("live", `the monitor has not answered since ${clock(state.heard / 1000)}`);
  else if (events.readyState === EventSource.CLOSED) show("live", "the monitor refuses: reload the page to log in");
}, 1000);
