/* The message of ExplorerWidget: a header, and the columns as buffers. */
function unpacked(header, buffers) {
  const array = (Kind, view) =>
    new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const kinds = { i4: Int32Array, u1: Uint8Array, f8: Float64Array };
  const column = {};
  header.columns.forEach(([name, kind], i) => { column[name] = array(kinds[kind], buffers[i]); });
  const { name, kind, detail, parent, self } = column, data = { ...header, name, kind, detail };
  data.colours = header.palettes.map((palette) => column[palette.by]);
  if (header.changes) {
    data.changes = { ...header.changes, ...column };
    data.marks = column.status;
    data.key = column.key;
  }
  let ids = null;
  data.ids = () => ids = ids || identities(name, kind, detail);
  const rooted = (from, to) => finished(parent.subarray(from, to),
    Int32Array.from({ length: to - from }, (_, i) => from + i), self.subarray(from, to));
  data.tree = rooted(0, header.cut || parent.length);
  if (header.cut) { data.callers = rooted(header.cut, parent.length); }
  const sorted = data.names.map((text, i) => [text, i]).sort((a, b) => (a[0] < b[0] ? -1 : 1));
  const rank = new Int32Array(data.names.length);
  sorted.forEach(([, i], place) => { rank[i] = place; });
  data.rank = name.map((i) => rank[i]); // of every frame
  return data;
}

/* Shows the tree in `host`; gives what others may do with it:
   `close()` takes it away; `weigh(self)`: other own weights (Float64Array) of the same frames, all
   is built anew, zoomed where it was as long as that frame has weight; `search(pattern)`;
   `sandwich(frame)`: -1 ends it.
   Options: `bare`: without a title and a search box of its own; `onSelect(frame)` is told the frame
   of the tree that somebody clicked or walked to; `overTime(lane)` promises the tree in the order
   of time, of all or of one of `data.lanes`; `shaped(shape)` one of two profiles that is reversed,
   collapsed or around the frames of a key: how certain their changes are, only their samples tell. */
function explore(given, host, theme, options = {}) {
  let data = given;
  const root = element("div", host, { className: "kvmp-x" });
  if (!options.bare) { element("div", root, { className: "kvmp-x-title", textContent: data.title }); }
  const bar = element("div", root, { className: "kvmp-x-bar" });
  const line = element("div", root, { className: "kvmp-x-about" });
  const matched = element("span", line, { className: "kvmp-x-matched" });
  const about = element("span", line, {});
  const legend = element("div", root, { className: "kvmp-x-about" });
  const stage = element("div", root, { className: "kvmp-x-stage" });
  const canvas = element("canvas", stage, { tabIndex: 0 });
  const tip = element("div", stage, { className: "kvmp-x-tip", hidden: true });
  const said = element("div", root, { className: "kvmp-x-said" });
  said.setAttribute("aria-live", "polite");
  const view = new View(data), painter = new Painter(canvas);
  let colour = 0, query = "", drawn = false, alive = true, shaping = null, laneNames = [];

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
    toggles[name] = button(words, key, () => {
      view[name] = !view[name];
      if (!view.grown || name === "icicle") { rebuild(); return; }
      reshape(name === "collapsed" && data.callers ? data.key[0] : null);
    });
  };
  toggle("icicle", "icicle", "i");
  if (!data.changes || options.shaped) {
    toggle("reversed", "reverse", "v");
    toggle("collapsed", "collapse recursion", "c");
    toggles.sandwich = button("sandwich", "s", () => sandwich());
  }
  // a tree in the order of time has callers more than once: it has no other
  const orders = Object.entries({ name: "by name", heavy: "left heavy", time: "over time" })
    .filter(([order]) => (order === "time" ? options.overTime || data.order === order
      : data.order !== "time"));
  const order = choice("order of siblings", orders.map(([, words]) => words), reorder);
  const lanes = choice("thread or vCPU", [], reorder);
  if (data.palettes.length > 1) {
    choice("colours", data.palettes.map((one) => `colour by ${one.by}`), (i) => {
      colour = i;
      paint();
    });
  }
  button("reset", "r", reset);
  setLanes(data.lanes || [], -1);
  setOrder(data.order);

  function setLanes(names, chosen) {
    laneNames = names;
    lanes.replaceChildren();
    ["all threads", ...names].forEach((text) => element("option", lanes, { textContent: text }));
    lanes.selectedIndex = chosen + 1;
    lanes.hidden = names.length < 2;
  }

  function setOrder(wanted) {
    order.selectedIndex = orders.findIndex(([name]) => name === wanted);
    order.hidden = orders.length < 2;
    lanes.hidden = wanted !== "time" || !options.overTime || lanes.length < 2;
  }

  /* Siblings in the order chosen; that of time is another tree, which has to be asked for. */
  async function reorder() {
    const wanted = orders[order.selectedIndex][0], lane = lanes.selectedIndex - 1;
    setOrder(wanted);
    if (wanted === "time" && options.overTime) {
      about.textContent = "putting it in the order of time \u2026";
      const names = laneNames, asking = shaping = {};
      const found = await options.overTime(lane, names);
      if (!alive || shaping !== asking) { return; }
      if (found.lanes && found.lanes.join() !== names.join()) { setLanes(found.lanes, found.lane); }
      data = found;
    } else {
      shaping = null;
      data = given;
    }
    view.sandwich = view.data === data ? view.sandwich : -1;
    change();
    view.order = wanted;
    rebuild();
  }

  function change() {
    if (view.data === data) { return; }
    view.data = data;
    find(query);
  }

  /* The tree of two profiles in another shape; `key` is that of the frame to be between callers and
     callees, null for none. */
  async function reshape(key = null) {
    const shape = { reversed: view.reversed, collapsed: view.collapsed, key };
    const plain = given.shape && key === null && shape.reversed === given.shape.reversed &&
      shape.collapsed === given.shape.collapsed;
    shaping = shape;
    if (!plain) { about.textContent = "working out how certain it is \u2026"; }
    const found = plain ? given : await options.shaped(shape);
    if (!alive || shaping !== shape) { return; }
    data = found;
    view.sandwich = data.callers ? 0 : -1;
    change();
    rebuild();
  }

  function rebuild(keep = false) {
    view.build(keep);
    tip.hidden = true;
    for (const [name, made] of Object.entries(toggles)) {
      made.setAttribute("aria-pressed", String(name === "sandwich" ? view.sandwich >= 0 : view[name]));
    }
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${data.title}: flame graph of ${view.shown()} frames. Arrows ` +
      "move between frames, Enter zooms, m shows what can be done with one, r resets" +
      (toggles.sandwich ? ", s shows callers and callees" : "") + (options.bare ? "." : ", slash searches."));
    resize();
    paint();
    told();
  }

  function told() {
    const total = view.halves[0].tree.total[0];
    const of = view.sandwich < 0 ? ""
      : `${data.names[data.name[view.sandwich]]}: callers above, callees beneath`;
    about.textContent = [data.subtitle, of,
      data.changes ? `width is ${data.unit}`
        : `${amountText(total, data.unit)} (${partText(total, data.tree.total[0])} of all)`,
      `${view.shown().toLocaleString("en")} frames`].filter(Boolean).join(" \u00b7 ");
    const { half, node } = view.zoomed;
    matched.textContent = painter.hits === null ? ""
      : percentText(matchedShare(half.tree, node, (frame) => painter.hits[data.name[frame]] === 1)) + " matched";
  }

  function paint() {
    const dark = isDark(theme) ? 1 : 0;
    painter.paint(data, colour, dark);
    setColours(root, painter.colours.theme);
    legend.replaceChildren();
    data.palettes[colour].legend.forEach(([words, shade, mark]) => {
      const entry = element("span", legend, { className: words ? "kvmp-x-key" : "kvmp-x-step" });
      element("i", entry, { className: mark }).style.background = shade[dark];
      entry.append(words);
    });
    draw();
  }

  function resize() {
    view.resize(Math.max(stage.clientWidth, 200));
    painter.fit(view);
    view.scroll(0);
    drawn = false;
    draw();
  }

  function draw() {
    if (drawn) { return; }
    drawn = true;
    requestAnimationFrame(() => {
      drawn = false;
      const start = performance.now();
      painter.draw(view);
      root.dataset.drawn = (performance.now() - start).toFixed(2);
    });
  }

  function show(place, event) {
    const same = view.hover && place && view.hover.node === place.node && view.hover.half === place.half;
    if (!same && (view.hover || place)) {
      view.hover = place;
      draw();
    }
    tip.hidden = !place;
    if (!place) { return; }
    if (!same) { tip.textContent = wordsOf(view, place).join("\n"); }
    beside(tip, event);
  }

  /* Puts a box beside the pointer, within the stage. */
  function beside(box, event) {
    const edge = stage.getBoundingClientRect(), x = event.clientX - edge.left, y = event.clientY - edge.top;
    box.style.left = Math.max(0, Math.min(x + 14, view.width - box.offsetWidth - 2)) + "px";
    box.style.top = (y + 20 + box.offsetHeight > view.height + 60 ? y - box.offsetHeight - 8 : y + 18) + "px";
  }

  function zoomTo(place) {
    const { left, span } = view.span(place), from = [view.x0, view.x1], start = performance.now();
    view.zoomed = view.selected = place;
    view.bringIn(place);
    told();
    const step = () => {
      const part = Math.min(1, (performance.now() - start) / 140), eased = part * (2 - part);
      view.show(from[0] + (left - from[0]) * eased, from[1] + (left + span - from[1]) * eased);
      draw();
      if (part < 1 && alive && view.zoomed === place) { requestAnimationFrame(step); }
    };
    step();
  }

  function select(place) {
    if (!place) { return; }
    view.select(place);
    said.textContent = wordsOf(view, place).join(", ");
    chosen(place);
    draw();
  }

  function chosen(place) {
    if (options.onSelect && data === given) { options.onSelect(view.frame(place)); }
  }

  function sandwich(place) {
    const of = place || (view.sandwich < 0 && view.selected.node > 0 ? view.selected : null);
    if (!toggles.sandwich) { return; }
    if (view.grown) { reshape(of && data.key[view.frame(of)] >= 0 ? data.key[view.frame(of)] : null); return; }
    view.sandwich = of ? view.frame(of) : -1;
    rebuild();
  }

  function find(pattern) {
    let test = null;
    query = pattern;
    search.classList.remove("kvmp-x-bad");
    try {
      test = pattern ? expression(pattern) : null;
    } catch (error) {
      search.classList.add("kvmp-x-bad");
    }
    painter.hits = test && Uint8Array.from(data.names, (name) => (test.test(name) ? 1 : 0));
    told();
    if (pattern && !test) { matched.textContent = "not a regular expression"; }
    draw();
  }

  function searchFor(pattern) {
    search.value = pattern;
    find(pattern);
  }

  function reset() {
    shaping = null;
    data = given;
    view.data = data;
    view.plain();
    view.order = data.order;
    lanes.selectedIndex = 0;
    setOrder(data.order);
    searchFor("");
    rebuild();
  }

  const act = { zoomTo, select, sandwich, reset, show, draw, searchFor, beside,
    chosen, toggles, search: options.bare ? null : search };
  const forget = attend({ root, stage, canvas, view, tip }, act);
  const watch = new ResizeObserver(resize);
  watch.observe(stage);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", paint);
  const themed = new MutationObserver(paint); // JupyterLab says its theme on the body
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  rebuild();
  if (data.focus) { zoomTo({ half: view.halves[0], node: data.focus }); }
  if (data.query) { searchFor(data.query); }
  return {
    close() {
      alive = false;
      watch.disconnect();
      themed.disconnect();
      scheme.removeEventListener("change", paint);
      forget();
      root.remove();
    },
    weigh(self) {
      given.tree = finished(given.tree.parent, given.tree.frame, self);
      if (view.order === "time" && options.overTime) { reorder(); } else { rebuild(true); }
    },
    search: searchFor,
    sandwich(frame) {
      if (frame >= 0 && data !== given) { // its frames are of the tree as it was given
        data = given;
        view.order = given.order;
        setOrder(given.order);
        change();
      }
      view.sandwich = frame;
      rebuild();
    },
  };
}
