const ROW = 18, MOST_HEIGHT = 640, CHARACTER = 6.75, MATCH = "#cc79a7";

function partText(part, whole) { return percentText(whole ? 100 * part / whole : 0); }

function inkOn(colour) {
  const part = (at) => {
    const c = parseInt(colour.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  const light = 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
  return (light + 0.05) / 0.0557 >= 1.05 / (light + 0.05) ? "#111111" : "#ffffff";
}

/* The message of ExplorerWidget: a header, and the columns as buffers. */
function unpacked(header, buffers) {
  const array = (Kind, view) =>
    new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const [parent, self, name, kind, detail, ...colours] = buffers;
  const data = { ...header, name: array(Int32Array, name), kind: array(Uint8Array, kind),
    detail: array(Int32Array, detail), colours: colours.map((view) => array(Uint8Array, view)) };
  const parents = array(Int32Array, parent);
  const frame = Int32Array.from(parents, (_, i) => i);
  data.ids = identities(data.name, data.kind, data.detail);
  data.tree = finished(parents, frame, array(Float64Array, self));
  const sorted = data.names.map((text, i) => [text, i]).sort((a, b) => (a[0] < b[0] ? -1 : 1));
  const rank = new Int32Array(data.names.length);
  sorted.forEach(([, i], place) => { rank[i] = place; });
  data.rank = data.name.map((i) => rank[i]); // of every frame
  return data;
}

/* Shows the tree in `host`; gives what others may do with it:
   `close()` takes it away; `weigh(self)`: other own weights (Float64Array) of the same frames, all
   is built anew, zoomed where it was as long as that frame has weight; `search(pattern)`;
   `sandwich(frame)`: -1 ends it.
   `options.bare`: without a title and a search box of its own; `options.onSelect(frame)` is told
   the frame of the tree that somebody clicked or walked to. */
function explore(data, host, theme, options = {}) {
  const root = element("div", host, { className: "kvmp-x" });
  if (!options.bare) { element("div", root, { className: "kvmp-x-title", textContent: data.title }); }
  const bar = element("div", root, { className: "kvmp-x-bar" });
  const line = element("div", root, { className: "kvmp-x-about" });
  const matched = element("span", line, { className: "kvmp-x-matched" });
  const legend = element("div", root, { className: "kvmp-x-about" });
  const about = element("span", line, {});
  const stage = element("div", root, { className: "kvmp-x-stage" });
  const canvas = element("canvas", stage, { tabIndex: 0 });
  const tip = element("div", stage, { className: "kvmp-x-tip", hidden: true });
  const said = element("div", root, { className: "kvmp-x-said" });
  said.setAttribute("aria-live", "polite");
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${data.title}: flame graph of ${data.tree.n} frames. ` +
    "Arrows move between frames, Enter zooms, s shows callers and callees, slash searches, r resets.");
  const context = canvas.getContext("2d");
  const state = { icicle: false, reversed: false, collapsed: false, sandwich: -1, order: "name",
    colour: 0, x0: 0, x1: 1, top: 0, zoomed: null, selected: null, hover: null, query: null };
  let halves = [], rows = 1, base = 0, height = 100, width = 100, colours = null, drawn = false;

  const button = (words, key, act) => element("button", bar,
    { type: "button", textContent: words, title: key ? `key ${key}` : "", onclick: act });
  const choice = (label, words, act) => {
    const made = element("select", bar, { title: label, onchange: () => act(made.selectedIndex) });
    made.setAttribute("aria-label", label);
    words.forEach((text) => element("option", made, { textContent: text }));
    return made;
  };
  const search = element("input", bar, { type: "search", placeholder: "search: / regex",
    hidden: Boolean(options.bare), oninput: () => find(search.value) });
  search.setAttribute("aria-label", "regular expression to find in the names of frames");
  const toggles = {};
  const toggle = (name, words, key) => {
    toggles[name] = button(words, key, () => { state[name] = !state[name]; rebuild(); });
  };
  toggle("icicle", "icicle", "i");
  toggle("reversed", "reverse", "v");
  toggle("collapsed", "collapse recursion", "c");
  toggles.sandwich = button("sandwich", "s", () => sandwich());
  choice("order of siblings", ["by name", "left heavy"], (i) => {
    state.order = ["name", "heavy"][i];
    rebuild();
  });
  choice("colours", data.palettes.map((one) => `colour by ${one.by}`), (i) => {
    state.colour = i;
    paint();
  });
  button("reset", "r", reset);

  function nameOf(half, node) { return data.names[data.name[half.tree.frame[node]]]; }
  function isHit(frame) { return state.query !== null && state.hits[data.name[frame]] === 1; }

  /* Builds what is shown out of the tree; shows all of it, or with `keep` what was shown. */
  function rebuild(keep = false) {
    const before = keep && { path: pathOf(state.zoomed), lift: base * ROW - state.top,
      ...spanOf(state.zoomed) };
    const tree = state.collapsed ? collapsed(data.tree, data.ids) : data.tree;
    const made = (one, sign) =>
      ({ tree: placed(one, state.order, data.rank), sign });
    if (state.sandwich >= 0) {
      halves = [made(callees(tree, data.ids, state.sandwich), 1),
        made(callers(tree, data.ids, state.sandwich), -1)];
    } else {
      const one = state.reversed ? reversed(tree, data.ids) : { ...tree };
      halves = [made(one, state.icicle || state.reversed ? 1 : -1)];
    }
    const reach = (sign) => Math.max(1, ...halves.filter((h) => h.sign === sign)
      .map((h) => h.tree.levels.length));
    base = reach(-1) - 1; // the row of the root
    rows = base + reach(1);
    state.zoomed = state.selected = { half: halves[0], node: before ? found(before.path) : 0 };
    const { left, span } = spanOf(state.zoomed), part = before && state.zoomed.node ? before : null;
    state.x0 = left + (part ? (state.x0 - part.left) / part.span * span : 0);
    state.x1 = left + (part ? (state.x1 - part.left) / part.span * span : span);
    show(null);
    for (const [name, made] of Object.entries(toggles)) {
      made.setAttribute("aria-pressed", String(name === "sandwich" ? state.sandwich >= 0 : state[name]));
    }
    resize();
    state.top = before ? base * ROW - before.lift
      : halves[0].sign < 0 ? rows * ROW - height : Math.max(0, (base + 1) * ROW - height / 2);
    scroll(0);
    paint();
    told();
  }

  /* From the root to a node. */
  function pathOf({ half, node }) {
    const path = [];
    for (let at = node; at > 0; at = half.tree.parent[at]) { path.push(half.tree.frame[at]); }
    return path.reverse();
  }

  /* The node of the first half that this path leads to, or as far as there is weight on it. */
  function found(path) {
    const tree = halves[0].tree;
    let node = 0;
    for (let depth = 1; depth <= path.length && depth < tree.levels.length; depth++) {
      const frame = path[depth - 1], beneath = Array.from(tree.levels[depth])
        .filter((one) => tree.parent[one] === node && data.ids.of[tree.frame[one]] === data.ids.of[frame]);
      if (!beneath.length) { break; }
      node = beneath.find((one) => tree.frame[one] === frame) ?? beneath[0];
    }
    return node;
  }

  function spanOf({ half, node }) {
    return { left: half.tree.x[node], span: half.tree.width[node] || 1 };
  }

  function told() {
    const shown = halves.reduce((sum, half) => sum + half.tree.shown, 0);
    const total = halves[0].tree.total[0];
    about.textContent = [data.subtitle,
      state.sandwich >= 0 ? `${data.names[data.name[state.sandwich]]}: callers above, callees beneath` : "",
      `${amountText(total, data.unit)} (${partText(total, data.tree.total[0])} of all)`,
      `${shown.toLocaleString("en")} frames`].filter(Boolean).join(" · ");
    const { half, node } = state.zoomed;
    matched.textContent = state.query === null ? ""
      : percentText(matchedShare(half.tree, node, isHit)) + " matched";
  }

  function paint() {
    const dark = isDark(theme), palette = data.palettes[state.colour];
    const fills = palette.shades.map((shade) => shade[dark ? 1 : 0]);
    colours = { fills, inks: fills.map(inkOn), of: data.colours[state.colour],
      theme: data.themes[dark ? 1 : 0] };
    setColours(root, colours.theme);
    legend.replaceChildren();
    palette.legend.forEach(([words, shade]) => {
      const entry = element("span", legend, { className: "kvmp-x-key" });
      element("i", entry, {}).style.background = shade[dark ? 1 : 0];
      entry.append(words);
    });
    draw();
  }

  function resize() {
    width = Math.max(stage.clientWidth, 200);
    height = Math.max(Math.min(rows * ROW, MOST_HEIGHT), 4 * ROW);
    fitted(canvas, context, width, height);
    drawn = false;
  }

  function draw() {
    if (!drawn) { drawn = true; requestAnimationFrame(drawNow); }
  }

  function drawNow() {
    drawn = false;
    const start = performance.now();
    context.fillStyle = colours.theme.background;
    context.fillRect(0, 0, width, height);
    context.font = "11px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace";
    context.textBaseline = "middle";
    halves.forEach(drawHalf);
    outline(state.selected, 2);
    outline(state.hover, 1);
    root.dataset.drawn = (performance.now() - start).toFixed(2);
  }

  function rowTop(half, depth) { return (base + half.sign * depth) * ROW - state.top; }

  function drawHalf(half, number) {
    const tree = half.tree, scale = width / (state.x1 - state.x0);
    for (let depth = number; depth < tree.levels.length; depth++) { // the root is drawn once
      const top = rowTop(half, depth), level = tree.levels[depth];
      if (top < -ROW || top > height) { continue; }
      let end = -1;
      for (let k = firstBeyond(tree, level, state.x0); k < level.length; k++) {
        const node = level[k], left = (tree.x[node] - state.x0) * scale;
        if (left > width) { break; }
        const right = left + tree.width[node] * scale;
        if (right - end < 0.4) { continue; } // what is narrower shares a pixel
        drawFrame(tree, node, Math.max(left, 0), Math.min(right, width), top);
        end = right;
      }
    }
  }

  function drawFrame(tree, node, left, right, top) {
    const frame = tree.frame[node], shade = colours.of[frame], hit = isHit(frame);
    const room = right - left;
    context.globalAlpha = state.query !== null && !hit ? 0.3 : 1;
    context.fillStyle = hit ? MATCH : colours.fills[shade];
    context.fillRect(left, top, Math.max(room - (room > 3 ? 0.7 : 0), 0.4), ROW - 1);
    if (room < 30) { return; }
    const fits = Math.floor((room - 7) / CHARACTER), text = data.names[data.name[frame]];
    context.globalAlpha = 1;
    context.fillStyle = hit ? "#111111" : state.query !== null ? colours.theme.ink : colours.inks[shade];
    context.fillText(text.length <= fits ? text : text.slice(0, fits - 1) + "\u2026", left + 3.5, top + ROW / 2);
  }

  function outline(at, line) {
    context.globalAlpha = 1;
    if (!at || at.half.tree !== (halves.find((h) => h === at.half) || {}).tree) { return; }
    const scale = width / (state.x1 - state.x0), tree = at.half.tree;
    const left = Math.max((tree.x[at.node] - state.x0) * scale, 0);
    const right = Math.min((tree.x[at.node] + tree.width[at.node] - state.x0) * scale, width);
    if (right < 0 || left > width) { return; }
    context.strokeStyle = colours.theme.ink;
    context.lineWidth = line;
    context.strokeRect(left + 0.5, rowTop(at.half, tree.depth[at.node]) + 0.5, Math.max(right - left - 1.5, 1), ROW - 2);
  }

  function at(event) {
    const box = canvas.getBoundingClientRect();
    const x = state.x0 + (event.clientX - box.left) / width * (state.x1 - state.x0);
    const row = Math.floor((event.clientY - box.top + state.top) / ROW) - base;
    const half = halves.find((one) => one.sign === Math.sign(row)) || (row === 0 ? halves[0] : null);
    const level = half && half.tree.levels[Math.abs(row)];
    if (!level) { return null; }
    const node = level[firstBeyond(half.tree, level, x)];
    return node !== undefined && half.tree.x[node] <= x ? { half, node } : null;
  }

  function lines({ half, node }) {
    const tree = half.tree, frame = tree.frame[node], total = tree.total[node], own = tree.self[node];
    const zoomed = state.zoomed.half.tree.total[state.zoomed.node], labels = [];
    const flipped = state.reversed || half.sign < 0 && state.sandwich >= 0;
    if (!flipped) {
      for (let up = frame; up > 0; up = data.tree.parent[up]) {
        if (!data.kinds[data.kind[up]] && up !== frame) { labels.unshift(data.names[data.name[up]]); }
      }
    }
    return [data.names[data.name[frame]],
      `${amountText(total, data.unit)}: ${partText(total, data.tree.total[0])} of all, ` +
        `${partText(total, zoomed)} of the zoomed frame`,
      own && !flipped ? `self ${amountText(own, data.unit)} (${partText(own, data.tree.total[0])})` : "",
      [data.kinds[data.kind[frame]], data.details[data.detail[frame]]].filter(Boolean).join(" · "),
      labels.length && state.sandwich < 0 ? "in " + labels.join(" \u203a ") : ""].filter(Boolean);
  }

  function show(where, event) {
    if ((where && where.node) !== (state.hover && state.hover.node) ||
        (where && where.half) !== (state.hover && state.hover.half)) {
      state.hover = where;
      draw();
    }
    tip.hidden = !where;
    if (!where) { return; }
    tip.textContent = lines(where).join("\n");
    const box = stage.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    tip.style.left = Math.max(0, Math.min(x + 14, width - tip.offsetWidth - 2)) + "px";
    tip.style.top = (y + 20 + tip.offsetHeight > height + 60 ? y - tip.offsetHeight - 8 : y + 18) + "px";
  }

  function view(x0, x1) {
    const span = Math.min(Math.max(x1 - x0, 1e-9), 1);
    state.x0 = Math.min(Math.max(x0, 0), 1 - span);
    state.x1 = state.x0 + span;
    draw();
  }

  function scroll(by) {
    state.top = Math.max(0, Math.min(state.top + by, rows * ROW - height));
    draw();
  }

  function zoomTo(where) {
    const tree = where.half.tree, from = [state.x0, state.x1], start = performance.now();
    const to = [tree.x[where.node], tree.x[where.node] + tree.width[where.node]];
    state.zoomed = state.selected = where;
    bringIn(where);
    told();
    const step = () => {
      const part = Math.min(1, (performance.now() - start) / 140), eased = part * (2 - part);
      view(from[0] + (to[0] - from[0]) * eased, from[1] + (to[1] - from[1]) * eased);
      if (part < 1 && state.zoomed === where) { requestAnimationFrame(step); }
    };
    step();
  }

  function bringIn(where) {
    const top = rowTop(where.half, where.half.tree.depth[where.node]);
    if (top < 0) { scroll(top - 3 * ROW); } else if (top > height - ROW) { scroll(top - height + 4 * ROW); }
  }

  function chosen(where) {
    if (options.onSelect) { options.onSelect(where.half.tree.frame[where.node]); }
  }

  function select(where) {
    const tree = where.half.tree, middle = tree.x[where.node] + tree.width[where.node] / 2;
    state.selected = where;
    bringIn(where);
    if (middle < state.x0 || middle > state.x1) {
      const half = (state.x1 - state.x0) / 2;
      view(middle - half, middle + half);
    }
    said.textContent = lines(where).join(", ");
    chosen(where);
    draw();
  }

  function step(key) {
    const { half, node } = state.selected, tree = half.tree, depth = tree.depth[node];
    const outwards = (key === "ArrowDown") === (half.sign > 0);
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const level = tree.levels[depth], next = level.indexOf(node) + (key === "ArrowLeft" ? -1 : 1);
      if (level[next] !== undefined) { select({ half, node: level[next] }); }
    } else if (node === 0 && halves.length > 1) {
      const other = halves.find((one) => (one.sign > 0) === (key === "ArrowDown"));
      widest(other, 0);
    } else if (outwards) {
      widest(half, node);
    } else if (node > 0) {
      select({ half, node: tree.parent[node] });
    }
  }

  function widest(half, node) {
    const tree = half.tree, level = tree.levels[tree.depth[node] + 1] || [];
    let best = -1;
    for (const one of level) {
      if (tree.parent[one] === node && (best < 0 || tree.total[one] > tree.total[best])) { best = one; }
    }
    if (best >= 0) { select({ half, node: best }); }
  }

  function sandwich(where) {
    const of = where || (state.sandwich < 0 && state.selected.node > 0 ? state.selected : null);
    state.sandwich = of ? of.half.tree.frame[of.node] : -1;
    rebuild();
  }

  function find(pattern) {
    state.query = null;
    search.classList.remove("kvmp-x-bad");
    if (pattern) {
      try {
        const test = new RegExp(pattern);
        state.hits = Uint8Array.from(data.names, (name) => (test.test(name) ? 1 : 0));
        state.query = pattern;
      } catch (error) {
        search.classList.add("kvmp-x-bad");
        matched.textContent = "not a regular expression";
        draw();
        return;
      }
    }
    told();
    draw();
  }

  function reset() {
    Object.assign(state, { icicle: false, reversed: false, collapsed: false, sandwich: -1 });
    search.value = "";
    find("");
    rebuild();
  }

  let grip = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey) { scroll(event.deltaY || event.deltaX); return; }
    const x = state.x0 + event.offsetX / width * (state.x1 - state.x0);
    const factor = Math.exp(Math.max(-300, Math.min(300, event.deltaY)) * 0.002);
    view(x - (x - state.x0) * factor, x + (state.x1 - x) * factor);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    grip = { x: event.clientX, y: event.clientY, x0: state.x0, x1: state.x1, top: state.top, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!grip) { show(at(event), event); return; }
    const dx = event.clientX - grip.x, dy = event.clientY - grip.y;
    grip.moved = grip.moved || Math.abs(dx) + Math.abs(dy) > 4;
    if (grip.moved) {
      const by = dx / width * (grip.x1 - grip.x0);
      tip.hidden = true;
      view(grip.x0 - by, grip.x1 - by);
      state.top = grip.top - dy;
      scroll(0);
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const where = grip && !grip.moved ? at(event) : null;
    grip = null;
    canvas.focus({ preventScroll: true });
    if (!where) { return; }
    if (event.shiftKey || event.ctrlKey || event.metaKey) { sandwich(where); } else { zoomTo(where); }
    chosen(where);
  });
  canvas.addEventListener("pointerleave", () => { if (!grip) { show(null); } });
  root.addEventListener("keydown", (event) => {
    const key = event.key;
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    if (!options.bare || key !== "/") { event.stopPropagation(); } // notebooks have plain keys of their own
    if (event.target === search) {
      if (key === "Escape" || key === "Enter") { canvas.focus(); }
      return;
    }
    if (event.target.tagName === "SELECT") { return; }
    const acts = { r: reset, s: () => sandwich(),
      i: () => toggles.icicle.click(), v: () => toggles.reversed.click(), c: () => toggles.collapsed.click(),
      "+": () => scale(0.6), "-": () => scale(1 / 0.6), Escape: () => zoomTo({ half: halves[0], node: 0 }) };
    if (!options.bare) { acts["/"] = () => { search.focus(); search.select(); }; }
    if (event.target === canvas) {
      acts.Enter = () => zoomTo(state.selected);
      ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].forEach((name) => { acts[name] = () => step(name); });
    }
    if (acts[key]) { event.preventDefault(); acts[key](); }
  });
  function scale(factor) {
    const middle = (state.x0 + state.x1) / 2, half = (state.x1 - state.x0) / 2 * factor;
    view(middle - half, middle + half);
  }

  const watch = new ResizeObserver(() => { resize(); scroll(0); });
  watch.observe(stage);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", paint);
  const themed = new MutationObserver(paint); // JupyterLab says its theme on the body
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  rebuild();
  if (data.focus) { zoomTo({ half: halves[0], node: data.focus }); }
  return {
    close() {
      watch.disconnect();
      themed.disconnect();
      scheme.removeEventListener("change", paint);
      root.remove();
    },
    weigh(self) {
      data.tree = finished(data.tree.parent, data.tree.frame, self);
      rebuild(true);
    },
    search(pattern) {
      search.value = pattern;
      find(pattern);
    },
    sandwich(frame) {
      state.sandwich = frame;
      rebuild();
    },
  };
}
