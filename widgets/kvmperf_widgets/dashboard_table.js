/* The table: sorted by its headers, searched, of any length; only what is seen of it is in the page. */
const LINE = 22, LINES = 11, AROUND = 6;
const NUMBERS = [["self", "self %"], ["children", "children %"], ["samples", "samples"]];
const WIDTHS = { symbol: "minmax(200px,4fr)", dso: "minmax(90px,1.4fr)", mode: "104px", comm: "minmax(90px,1fr)",
  machine: "minmax(80px,1fr)" };

/* `act(row, how)`: somebody chose a row, `how` is "find" or "sandwich"; null: none any more. */
function rowTable(data, host, act) {
  const box = element("div", host, { className: "kvmp-d-rows" });
  const bar = element("div", box, { className: "kvmp-x-bar" });
  const search = element("input", bar, { type: "search", placeholder: "find in the table",
    oninput: () => { wanted = search.value.toLowerCase(); order(); } });
  search.setAttribute("aria-label", "text to find in the rows of the table");
  const words = element("span", bar, { className: "kvmp-x-about" });
  words.setAttribute("role", "status");
  const grid = element("div", box, { className: "kvmp-d-table" });
  const scroll = element("div", grid, { className: "kvmp-d-scroll", tabIndex: 0 });
  const head = element("div", scroll, { className: "kvmp-d-row kvmp-d-head" });
  const body = element("div", scroll, { className: "kvmp-d-body" });
  scroll.setAttribute("role", "grid");
  scroll.setAttribute("aria-label", "functions and what they took; Enter finds one in the flame graph, " +
    "s shows its callers and callees, Escape ends it");
  head.setAttribute("role", "row");
  body.setAttribute("role", "rowgroup");
  const id = `kvmp-d-${Math.random().toString(36).slice(2)}`;

  let by = [], group = null, sums = null, left = null, passed = null, rows = [];
  let sorted = [data.order, -1], wanted = "", cursor = -1, chosen = null, drawn = false;

  const keys = ["symbol", "dso", "mode", ...data.facets.filter((facet) =>
    facet.key !== "event" && new Set(facet.of).size > 1).map((facet) => facet.key)];
  by = keys.filter((key) => data.by.includes(key));
  if (!by.length) { by = ["symbol"]; }
  bar.append("by");
  for (const key of keys) {
    const made = element("button", bar, { type: "button", textContent: key, onclick: () => {
      const next = keys.filter((one) => (one === key) !== by.includes(one));
      if (!next.length) { return; }
      by = next;
      regroup();
    } });
    made.dataset.key = key;
  }

  const textOf = (row, key) => {
    const frame = group.frame[row], { frames } = data;
    if (key === "symbol") { return data.names[frames.name[frame]]; }
    if (key === "dso") { return data.details[frames.detail[frame]]; }
    if (key === "mode") { return data.kinds[frames.kind[frame]]; }
    const facet = facetOf(data, key);
    return facet.names[facet.of[group.facet[row]]];
  };

  function regroup() {
    group = grouping(data, by);
    if (!group) {
      words.textContent = "too many rows: by fewer columns";
      by = ["symbol"];
      group = grouping(data, by);
    }
    bar.querySelectorAll("button").forEach((made) =>
      made.setAttribute("aria-pressed", String(by.includes(made.dataset.key))));
    const columns = [...NUMBERS, ...by.map((key) => [key, key])];
    grid.style.setProperty("--kvmp-columns", columns.map(([key], i) =>
      (i < NUMBERS.length ? "104px" : WIDTHS[key] || "80px")).join(" "));
    head.replaceChildren();
    for (const [key, text] of columns) {
      const cell = element("div", head, {});
      cell.setAttribute("role", "columnheader");
      cell.dataset.key = key;
      element("button", cell, { type: "button", textContent: text, onclick: () => {
        const first = NUMBERS.some(([one]) => one === key) ? -1 : 1;
        sorted = [key, sorted[0] === key ? -sorted[1] : first];
        order();
      } });
    }
    if (!columns.some(([key]) => key === sorted[0])) { sorted = [data.order, -1]; }
    chosen = null;
    if (passed) { recount(); }
  }

  function recount() {
    sums = rowSums(data, group, passed);
    order();
  }

  function order() {
    const [key, way] = sorted, number = sums[key];
    rows = [];
    for (let row = 0; row < group.count; row++) { if (sums.children[row] > 0) { rows.push(row); } }
    if (wanted) { rows = rows.filter((row) => by.some((one) => textOf(row, one).toLowerCase().includes(wanted))); }
    if (number) {
      rows.sort((a, b) => way * (number[a] - number[b]) || sums.children[b] - sums.children[a] || a - b);
    } else {
      const texts = new Map(rows.map((row) => [row, textOf(row, key)])), vague = /^\d+$/;
      const compare = (a, b) => (vague.test(a) && vague.test(b) ? a - b : a < b ? -1 : a > b ? 1 : 0);
      rows.sort((a, b) => way * compare(texts.get(a), texts.get(b)) || sums.self[b] - sums.self[a] || a - b);
    }
    for (const cell of head.children) {
      const is = cell.dataset.key === key;
      cell.setAttribute("aria-sort", is ? (way < 0 ? "descending" : "ascending") : "none");
    }
    const count = `${rows.length.toLocaleString("en")} row${rows.length === 1 ? "" : "s"}`;
    words.textContent = wanted ? `${count} with it` : count;
    scroll.setAttribute("aria-rowcount", rows.length + 1);
    body.style.height = `${rows.length * LINE}px`;
    scroll.style.height = `${(Math.max(Math.min(rows.length, LINES), 2) + 1) * LINE + 2}px`;
    cursor = chosen === null ? -1 : rows.indexOf(chosen);
    draw();
  }

  function draw() { if (!drawn) { drawn = true; requestAnimationFrame(drawNow); } }

  function drawNow() {
    drawn = false;
    const first = Math.max(0, Math.floor(scroll.scrollTop / LINE) - AROUND);
    const last = Math.min(rows.length, first + LINES + 2 * AROUND);
    body.replaceChildren();
    for (let i = first; i < last; i++) { line(rows[i], i); }
    if (cursor >= first && cursor < last) { scroll.setAttribute("aria-activedescendant", `${id}-${cursor}`);
    } else { scroll.removeAttribute("aria-activedescendant"); }
  }

  function line(row, i) {
    const made = element("div", body, { className: "kvmp-d-row", id: `${id}-${i}` });
    made.setAttribute("role", "row");
    made.setAttribute("aria-rowindex", i + 2);
    made.setAttribute("aria-selected", String(row === chosen));
    made.classList.toggle("kvmp-d-cursor", i === cursor);
    made.style.top = `${i * LINE}px`;
    made.dataset.place = i;
    const whole = left.weight || 1;
    for (const key of ["self", "children"]) {
      const share = 100 * sums[key][row] / whole;
      cellOf(made, percentText(share), "kvmp-d-number").style.backgroundSize = `${Math.min(share, 100)}% 80%`;
    }
    cellOf(made, sums.samples[row].toLocaleString("en"), "kvmp-d-number");
    for (const key of by) { const text = textOf(row, key); cellOf(made, text, "").title = text; }
  }

  function cellOf(parent, text, className) {
    const cell = element("div", parent, { textContent: text, className });
    cell.setAttribute("role", "gridcell");
    return cell;
  }

  function choose(i, how) {
    cursor = i;
    const row = i < 0 ? null : rows[i];
    chosen = how === "find" && row === chosen ? null : row;
    if (by.includes("symbol")) { act(chosen === null ? null : group.frame[chosen], how); }
    draw();
  }

  function reach(i) {
    cursor = Math.max(0, Math.min(i, rows.length - 1));
    if (cursor * LINE < scroll.scrollTop) { scroll.scrollTop = cursor * LINE; }
    const below = (cursor + 2) * LINE - scroll.clientHeight; // the head stands above them
    if (below > scroll.scrollTop) { scroll.scrollTop = below; }
    draw();
  }

  scroll.addEventListener("scroll", draw);
  const placeOf = (event) => {
    const made = event.target.closest("[data-place]");
    return made ? Number(made.dataset.place) : -1;
  };
  let clicked = 0;
  body.addEventListener("click", (event) => {
    const i = placeOf(event);
    if (i < 0) { return; }
    clearTimeout(clicked);
    if (event.shiftKey || event.ctrlKey || event.metaKey) { choose(i, "sandwich"); return; }
    // the second click of two is not to undo the first
    if (event.detail === 2) { chosen = null; choose(i, "sandwich"); } else { choose(i, "find"); }
  });
  scroll.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    const page = LINES - 1;
    const moves = { ArrowDown: cursor + 1, ArrowUp: cursor - 1, PageDown: cursor + page, PageUp: cursor - page,
      Home: 0, End: rows.length - 1 };
    if (event.key in moves) { reach(moves[event.key]);
    } else if (event.key === "Enter" && cursor >= 0) { choose(cursor, "find");
    } else if (event.key === "s" && cursor >= 0) { choose(cursor, "sandwich");
    } else if (event.key === "Escape") { choose(-1, "find");
    } else { return; }
    event.preventDefault();
    event.stopPropagation();
  });

  regroup();
  return {
    show(found) {
      ({ left, passed } = found);
      recount();
    },
    /* Brings in the row of a frame, where there is one. */
    point(frame) {
      const i = rows.findIndex((row) => group.same[group.frame[row]] === group.same[frame]);
      if (i >= 0) { reach(i); }
    },
    close() { clearTimeout(clicked); },
  };
}
