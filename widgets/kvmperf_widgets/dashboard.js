/* The dashboard: filters, strip of time, table and flame graph of one set of samples. */

/* `change(filter)` is told of every filter that somebody sets here; `filter` is the first.
   `overTime(filter, lane)` promises the flame graph of what passes a filter in the order of time, of
   the lane of this name or of all; a page without a kernel has none. */
function dashboard(data, host, theme, filter, change, { titled = true, overTime = null } = {}) {
  const root = element("div", host, { className: "kvmp-x kvmp-d" });
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", data.title);
  if (titled) { element("div", root, { className: "kvmp-x-title", textContent: data.title }); }
  const colours = {
    theme: () => data.themes[isDark(theme) ? 1 : 0],
    mode: (kind) => (data.modes[kind] || data.modes.unknown)[isDark(theme) ? 1 : 0],
    unit: () => (data.events[filter.event || 0] || ["", "samples"])[1],
  };
  const filters = filterBar(data, root, chosen, colours.mode);
  const words = element("div", root, { className: "kvmp-d-words" });
  words.setAttribute("role", "status");
  data.notes.forEach((note) => element("div", root, { className: "kvmp-x-about", textContent: note }));
  const strip = timeStrip(data, root, (time) => chosen({ ...filter, time }), colours);
  const map = timeHeat(data, root, (time) => chosen({ ...filter, time }));
  const table = rowTable(data, root, find);
  let flame = null, tree = null, between = false; // whether it stands between callers and callees

  function chosen(next) {
    for (const key of Object.keys(next)) { if (next[key] === undefined) { delete next[key]; } }
    show(next);
    change(filter);
  }

  function show(next) {
    const start = performance.now();
    filter = next;
    const used = filter.symbol && !valid(filter.symbol) ? { ...filter, symbol: "" } : filter;
    const found = filtered(data, used);
    told(found, used);
    filters.show(filter, found);
    strip.show(filter, found);
    map.show(filter);
    table.show(found);
    if (flame) { weigh(found.self); }
    root.dataset.took = (performance.now() - start).toFixed(1);
    return found;
  }

  function weigh(self) {
    tree.unit = colours.unit();
    flame.weigh(self);
  }

  function told({ left, whole }, used) {
    const count = (number) => number.toLocaleString("en");
    const share = whole.weight ? 100 * left.weight / whole.weight : 0;
    const said = [`${count(left.samples)} of ${count(whole.samples)} samples`,
      `${percentText(share)} of the weight (${amountText(left.weight, colours.unit())})`];
    if (used.time) { said.push(`from ${strip.words(used.time)}`); }
    if (filter.symbol && !used.symbol) { said.push("the symbol is no regular expression: not used"); }
    words.textContent = said.join(", ");
  }

  /* What a row of the table is in the flame graph. */
  function find(frame, how) {
    const sandwich = frame !== null && how === "sandwich";
    if (sandwich || between) { flame.sandwich(sandwich ? data.someNode[frame] : -1); }
    between = sandwich;
    const name = frame === null ? "" : data.names[data.frames.name[frame]];
    flame.search(frame === null || sandwich ? "" : `^${escapedPattern(name)}$`);
  }

  function paint() {
    setColours(root, colours.theme());
    strip.draw();
  }

  paint();
  const first = show(filter);
  tree = explorable(data, first.self, colours.unit());
  const below = element("div", root, { className: "kvmp-d-flame" });
  flame = explore(tree, below, theme, { bare: true, onSelect: (node) => table.point(data.frame[node]),
    ...(overTime ? { overTime: (lane, lanes) => overTime(filter, lanes[lane]) } : {}) });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", paint);
  const themed = new MutationObserver(paint); // JupyterLab says its theme on the body
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  // notebooks have plain keys of their own
  root.addEventListener("keydown", (event) => { if (!event.ctrlKey && !event.metaKey && !event.altKey) { event.stopPropagation(); } });
  return {
    show: (next) => { if (JSON.stringify(next) !== JSON.stringify(filter)) { show(next); } },
    close() {
      scheme.removeEventListener("change", paint);
      themed.disconnect();
      [filters, strip, map, table, flame].forEach((part) => part.close());
      root.remove();
    },
  };
}
