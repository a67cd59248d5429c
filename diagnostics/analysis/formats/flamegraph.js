
// Draws the tree in #data. Names reach the page as text nodes and attributes only, never as markup.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const ROW = 19;          // height of a frame in pixels
  const LEAST = 0.6;       // a frame narrower than this many pixels is not drawn
  const LEAST_TEXT = 28;   // nor is text in one narrower than this
  const LETTER = 7.0;      // width of one letter of 11.5 px monospace
  const KINDS = {
    app: "application", library: "installed packages", standard: "standard library", native: "native code",
    none: "no Python stack",
  };

  const data = JSON.parse(document.getElementById("data").textContent);
  const count = data.parent.length;
  const children = Array.from({ length: count }, () => []);
  const depth = new Array(count).fill(0);
  for (let node = 1; node < count; node++) {
    children[data.parent[node]].push(node);
    depth[node] = depth[data.parent[node]] + 1;
  }

  const byId = (id) => document.getElementById(id);
  const graph = byId("graph"), details = byId("details"), search = byId("search"), reset = byId("reset");
  let zoom = 0;            // the node that fills the width
  let current = 0;         // the node that has the keyboard
  let pattern = "";
  let drawn = new Map();   // node -> its <g>
  let hits = new Set();

  // numbers

  function amount(value, signed) {
    const sign = value < 0 ? "-" : signed && value > 0 ? "+" : "";
    let size = Math.abs(value);
    if (data.unit === "bytes") {
      const units = ["B", "KiB", "MiB", "GiB", "TiB"];
      let unit = 0;
      while (size >= 1024 && unit < units.length - 1) { size /= 1024; unit++; }
      return sign + (unit ? size.toFixed(2) : size) + " " + units[unit];
    }
    return sign + size.toLocaleString("en") + (data.unit === "count" ? "" : " " + data.unit);
  }

  const percent = (part, whole) => (whole ? (100 * part / whole).toFixed(1) : "0.0") + "%";

  // frames in words

  function label(node) {
    if (node === 0) return "all";
    const [name, file, line] = data.frames[data.frame[node]];
    if (!file) return name;
    return `${name} ${file.slice(file.lastIndexOf("/") + 1)}${line ? ":" + line : ""}`;
  }

  function describe(node) {
    const [name, file, line] = node === 0 ? ["all", "", 0] : data.frames[data.frame[node]];
    const place = file ? ` (${file}${line ? ":" + line : ""})` : "";
    if (!data.differential) {
      const self = data.after[node] - children[node].reduce((sum, child) => sum + data.after[child], 0);
      return `${name}${place}: ${amount(data.after[node])}, ${percent(data.after[node], data.after[0])} of all` +
        (self && children[node].length ? `; ${amount(self)} of it here, or below in frames too small to show` : "");
    }
    const change = amount(data.after[node] - data.before[node], true);
    const sides = data.sides ? ` (before ${amount(data.before[node])}, after ${amount(data.after[node])})` : "";
    return `${name}${place}: ${change === "0 B" ? "no change" : change}${sides}`;
  }

  // colours: from the name alone, so that two graphs of one program look alike

  function kind(node) {
    if (node === 0) return "none";
    const [name, file] = data.frames[data.frame[node]];
    if (!file) return name.startsWith("(") ? "none" : "native";
    if (/[\\/](site|dist)-packages[\\/]/.test(file)) return "library";
    if (/[\\/]lib[\\/]python3[^\\/]*[\\/]|^<frozen/.test(file)) return "standard";
    return /\.(c|cc|cpp|h|hpp|rs|so[.\d]*)$/.test(file) ? "native" : "app";
  }

  function shade(text) {
    let sum = 0;
    for (let at = 0; at < text.length; at++) sum = (sum * 31 + text.charCodeAt(at)) >>> 0;
    return sum % 6;
  }

  function paint(rect, node) {
    if (data.differential) {
      const change = data.after[node] - data.before[node];
      rect.setAttribute("class", change > 0 ? "more" : change < 0 ? "less" : "none");
      rect.style.setProperty("--strength", String(data.width[node] ? Math.abs(change) / data.width[node] : 0));
    } else {
      rect.setAttribute("class", kind(node));
      rect.style.setProperty("--shade", String(shade(label(node))));
    }
  }

  // drawing: only what the present zoom shows

  function element(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    return made;
  }

  function visible(pixels) {
    const found = [];
    for (let node = zoom; node !== -1; node = data.parent[node]) {
      if (node !== zoom) found.push([node, 0, pixels]);
    }
    found.reverse();
    const scale = pixels / (data.width[zoom] || 1);
    const todo = [[zoom, 0]];
    while (todo.length) {
      const [node, left] = todo.pop();
      const width = data.width[node] * scale;
      if (width < LEAST && node !== zoom) continue;
      found.push([node, left, node === zoom ? pixels : width]);
      let at = left;
      const below = [];
      for (const child of children[node]) {
        below.push([child, at]);
        at += data.width[child] * scale;
      }
      todo.push(...below.reverse()); // what is read aloud is in the order that is seen
    }
    return found;
  }

  function draw() {
    const pixels = Math.max(200, graph.clientWidth - 4);
    const rows = visible(pixels);
    const height = (rows.reduce((most, [node]) => Math.max(most, depth[node]), 0) + 1) * ROW;
    const svg = element("svg", { viewBox: `0 0 ${pixels} ${height}`, height, role: "tree", "aria-label": document.title });
    drawn = new Map();
    for (const [node, left, width] of rows) {
      const group = element("g", {
        role: "treeitem", tabindex: "-1", "aria-label": describe(node), "aria-level": depth[node] + 1, "data-node": node,
      });
      if (depth[node] < depth[zoom]) group.classList.add("above");
      if (hits.has(node)) group.classList.add("hit");
      const rect = element("rect", { x: left, y: depth[node] * ROW, width: Math.max(0.3, width), height: ROW - 1, rx: 2 });
      paint(rect, node);
      group.append(rect);
      if (width >= LEAST_TEXT) group.append(caption(label(node), left, width, depth[node] * ROW));
      svg.append(group);
      drawn.set(node, group);
    }
    if (pattern) svg.classList.add("searching");
    graph.replaceChildren(svg);
    if (!drawn.has(current)) current = zoom;
    drawn.get(current).setAttribute("tabindex", "0");
    reset.disabled = zoom === 0;
  }

  function caption(text, left, width, y) {
    const room = Math.floor((width - 8) / LETTER);
    const made = element("text", { x: left + 4, y: y + 13 });
    made.textContent = text.length <= room ? text : room > 2 ? text.slice(0, room - 1) + "…" : "";
    return made;
  }

  // moving

  function zoomTo(node) {
    const focused = graph.contains(document.activeElement);
    zoom = current = node;
    draw();
    show(node);
    if (focused) drawn.get(node).focus();
  }

  function walkTo(node) {
    if (node === undefined || node === -1 || !drawn.has(node)) return;
    drawn.get(current).setAttribute("tabindex", "-1");
    current = node;
    drawn.get(node).setAttribute("tabindex", "0");
    drawn.get(node).focus();
  }

  function beside(node, step) {
    const row = children[data.parent[node]] || [];
    return row[row.indexOf(node) + step];
  }

  function widest(node) {
    return children[node].reduce((best, child) => (best === undefined || data.width[child] > data.width[best] ? child : best), undefined);
  }

  const show = (node) => { details.textContent = describe(node); };
  const nodeOf = (event) => {
    const group = event.target.closest("g[data-node]");
    return group ? Number(group.dataset.node) : null;
  };

  graph.addEventListener("click", (event) => { const node = nodeOf(event); if (node !== null) zoomTo(node); });
  graph.addEventListener("mouseover", (event) => { const node = nodeOf(event); if (node !== null) show(node); });
  graph.addEventListener("focusin", (event) => { const node = nodeOf(event); if (node !== null) { current = node; show(node); } });
  graph.addEventListener("keydown", (event) => {
    const moves = {
      ArrowUp: () => walkTo(data.parent[current]),
      ArrowDown: () => walkTo(widest(current)),
      ArrowLeft: () => walkTo(beside(current, -1)),
      ArrowRight: () => walkTo(beside(current, 1)),
      Enter: () => zoomTo(current),
      " ": () => zoomTo(current),
    };
    if (moves[event.key]) { event.preventDefault(); moves[event.key](); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.activeElement !== search) zoomTo(0);
    if (event.key === "/" && document.activeElement !== search) { event.preventDefault(); search.focus(); }
  });
  reset.addEventListener("click", () => zoomTo(0));

  // searching: plain text, any case; a share counts what is below a hit once

  search.addEventListener("input", () => {
    pattern = search.value.trim().toLowerCase();
    hits = new Set();
    let covered = 0;
    const within = new Array(count).fill(false);
    for (let node = 1; pattern && node < count; node++) {
      const [name, file] = data.frames[data.frame[node]];
      const hit = name.toLowerCase().includes(pattern) || file.toLowerCase().includes(pattern);
      if (hit) hits.add(node);
      if (hit && !within[data.parent[node]]) covered += data.width[node];
      within[node] = hit || within[data.parent[node]];
    }
    byId("found").textContent = pattern ? `${hits.size} frames, ${percent(covered, data.width[0])}` : "";
    draw();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    search.value = "";
    search.dispatchEvent(new Event("input"));
    search.blur();
  });

  // the start

  function legend() {
    const rows = data.differential
      ? [["more", data.sides ? "grew" : "more than before"], ["less", data.sides ? "shrank" : "less than before"], ["none", "unchanged"]]
      : Object.entries(KINDS).filter(([name]) => data.parent.some((_, node) => node > 0 && kind(node) === name));
    for (const [name, text] of rows) {
      const entry = document.createElement("span"), patch = document.createElement("i");
      patch.className = name;
      entry.append(patch, text);
      byId("legend").append(entry);
    }
  }

  byId("tools").hidden = false;
  if (data.hidden) byId("hidden").textContent = `Left out as too small to see: ${data.hidden.toLocaleString("en")} frames and what is below them.`;
  legend();
  draw();
  show(0);
  let waiting = 0;
  new ResizeObserver(() => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); }).observe(document.body);
})();
