/* The controls of a filter: those that have something to choose from. */
const FACET_WORDS = { comm: "command", machine: "VM", vcpu: "vCPU", cpu: "CPU", pid: "process", tid: "thread" };
const MOST_CHOICES = 200, FIND_FROM = 12;

/* `filter` is the state that the controls show; `change(filter)` is told what they make of it.
   `colourOf(mode)` is its colour. */
function filterBar(data, host, change, colourOf) {
  const bar = element("div", host, { className: "kvmp-x-bar kvmp-d-filters" });
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "filters");
  let filter = {}, found = null;
  const controls = [];

  const set = (key, value) => {
    const next = { ...filter, [key]: value };
    if (value === undefined) { delete next[key]; }
    change(next);
  };

  if (data.events.length > 1) {
    const select = element("select", element("label", bar, { textContent: "event " }),
      { onchange: () => set("event", select.selectedIndex) });
    data.events.forEach(([name]) => element("option", select, { textContent: name }));
    controls.push(() => { select.selectedIndex = filter.event || 0; });
  }
  const ended = new Set();
  for (const node of data.node) { ended.add(data.frames.kind[data.frame[node]]); }
  pick("modes", "mode", data.kinds.map((name, i) => ({ value: name, words: name, colour: name,
    sum: () => found.modes[i] })).filter((_, i) => ended.has(i)));
  for (const key of ["machine", "vcpu", "comm"]) {
    const place = data.facets.findIndex((facet) => facet.key === key), facet = data.facets[place];
    pick(key, FACET_WORDS[key], facet.choices.map((i) => ({ value: i, words: facet.names[i],
      sum: () => found.facets[place][i] })));
  }
  let later = 0, typed = "";
  const symbol = element("input", bar, { type: "search", placeholder: "symbol: regex", oninput: () => {
    clearTimeout(later);
    later = setTimeout(() => { typed = symbol.value; set("symbol", typed || undefined); }, 120);
  } });
  symbol.setAttribute("aria-label", "regular expression of the symbols in which samples are");
  controls.push(() => {
    const asked = filter.symbol || "";
    if (asked !== typed) { symbol.value = typed = asked; } // it was set elsewhere
    symbol.classList.toggle("kvmp-x-bad", !valid(asked));
  });
  const clear = element("button", bar, { type: "button", textContent: "clear", onclick: () => {
    clearTimeout(later);
    symbol.value = typed = "";
    change(filter.event ? { event: filter.event } : {});
  } });
  controls.push(() => { clear.disabled = !Object.keys(filter).some((key) => key !== "event"); });

  /* A list of choices to be ticked, beneath a button that says what is. */
  function pick(key, label, choices) {
    if (choices.length < 2) { return; }
    const box = element("details", bar, { className: "kvmp-d-pick" });
    const summary = element("summary", box, { onclick: () => { if (!box.open) { fill(); } } });
    const list = element("div", box, { className: "kvmp-d-choices" });
    list.setAttribute("role", "group");
    list.setAttribute("aria-label", label);
    const find = choices.length < FIND_FROM ? null : element("input", list, { type: "search",
      placeholder: "find", oninput: () => fill() });
    if (find) { find.setAttribute("aria-label", `find a ${label}`); }
    const rows = element("div", list, {});
    const chosen = () => new Set(filter[key] || []);
    const toggle = (value, on) => {
      const next = chosen();
      if (on) { next.add(value); } else { next.delete(value); }
      set(key, next.size ? choices.map((one) => one.value).filter((one) => next.has(one)) : undefined);
    };
    function fill() {
      const ticked = chosen(), whole = found.left.weight || 1, text = find ? find.value.toLowerCase() : "";
      const focused = rows.contains(document.activeElement) ? document.activeElement.value : null;
      const shown = choices.filter(({ words }) => words.toLowerCase().includes(text));
      if (choices.length >= FIND_FROM) { shown.sort((a, b) => ticked.has(b.value) - ticked.has(a.value) || b.sum() - a.sum()); }
      const sum = choices.reduce((all, one) => all + one.sum(), 0) || whole;
      rows.replaceChildren();
      for (const one of shown.slice(0, MOST_CHOICES)) {
        const row = element("label", rows, {});
        const tick = element("input", row, { type: "checkbox", value: String(one.value),
          checked: ticked.has(one.value), onchange: () => toggle(one.value, tick.checked) });
        if (one.colour) { element("i", row, {}).style.background = colourOf(one.colour); }
        element("span", row, { textContent: one.words });
        element("small", row, { textContent: percentText(100 * one.sum() / sum) });
        if (tick.value === focused) { tick.focus(); }
      }
      if (shown.length > MOST_CHOICES) {
        element("small", rows, { textContent: `${shown.length - MOST_CHOICES} more: find them by name` });
      }
    }
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && box.open) { box.open = false; summary.focus(); event.stopPropagation(); }
    });
    box.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !box.contains(event.relatedTarget)) { box.open = false; }
    });
    controls.push(() => {
      const ticked = chosen(), only = choices.filter((one) => ticked.has(one.value));
      summary.textContent = `${label}: ${!only.length ? "all" : only.length === 1 ? only[0].words
        : `${only.length} of ${choices.length}`}`;
      box.classList.toggle("kvmp-d-set", only.length > 0);
      if (box.open) { fill(); }
    });
  }

  const outside = (event) => bar.querySelectorAll("details[open]").forEach((box) => {
    if (!event.composedPath().includes(box)) { box.open = false; }
  });
  document.addEventListener("pointerdown", outside);
  return {
    show(next, sums) { filter = next; found = sums; controls.forEach((one) => one()); },
    close() { clearTimeout(later); document.removeEventListener("pointerdown", outside); },
  };
}

function valid(pattern) {
  try { expression(pattern); return true; } catch { return false; }
}
