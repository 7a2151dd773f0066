const SVG = "http://www.w3.org/2000/svg", NONE = 255, LEVELS = 250, TREND_WIDTH = 120, TREND_HEIGHT = 16;
const NUMBERS = ["overhead", "samples", "pid", "tid", "cpu", "vcpu"];

function bytesOf(view) { return new Uint8Array(view.buffer, view.byteOffset, view.byteLength); }

/* A line through levels of 0 to LEVELS, in a box as wide as they are many; gaps where there is none. */
function trendPath(levels) {
  let path = "", open = false;
  levels.forEach((level, i) => {
    if (level === NONE) { open = false; return; }
    const y = (TREND_HEIGHT - 1 - level / LEVELS * (TREND_HEIGHT - 2)).toFixed(1);
    path += `${open ? "L" : "M"}${i} ${y}${open ? "" : `L${i + 0.5} ${y}`}`; // a lone one is a dot
    open = true;
  });
  return path;
}

/* The rows. They stay where they are in the page, so that the focus stays on a place in the order;
   `act` has sort(column), pick(symbol), colour(mode) and, for a focus that would be lost, hold(). */
function liveTable(host, act) {
  const scroll = element("div", host, { className: "kvmp-l-scroll" });
  const table = element("table", scroll, { className: "kvmp-l-table" });
  table.setAttribute("aria-label", "symbols, heaviest first unless sorted");
  const head = element("tr", element("thead", table, {}), {});
  const body = element("tbody", table, {});
  let columns = [], rows = [], at = 0, view = null, levels = null;

  function setColumns(names) {
    if (names.join() === columns.join()) { return; }
    columns = names;
    head.replaceChildren();
    body.replaceChildren();
    rows = [];
    columns.forEach((name) => {
      const cell = element("th", head, { scope: "col", className: NUMBERS.includes(name) ? "n" : "" });
      element("button", cell, { type: "button", textContent: name, onclick: () => act.sort(name) });
      if (name === "overhead") {
        element("th", head, { scope: "col", textContent: "trend" });
      }
    });
  }

  function addRow() {
    const row = element("tr", body, { tabIndex: -1 });
    const made = { row, cells: [], trend: null };
    columns.forEach((name) => {
      made.cells.push(element("td", row, { className:
        name === "overhead" ? "n b" : NUMBERS.includes(name) ? "n" : name }));
      if (name === "overhead") {
        const cell = element("td", row, { className: "t" });
        const svg = document.createElementNS(SVG, "svg");
        svg.setAttribute("preserveAspectRatio", "none");
        svg.setAttribute("width", TREND_WIDTH);
        svg.setAttribute("height", TREND_HEIGHT);
        svg.setAttribute("role", "img");
        made.trend = document.createElementNS(SVG, "path");
        svg.append(made.trend);
        cell.append(svg);
      }
    });
    const place = rows.length;
    row.addEventListener("focus", () => { at = place; tabStop(); });
    row.addEventListener("dblclick", () => pick(place));
    rows.push(made);
  }

  function tabStop() { rows.forEach(({ row }, i) => { row.tabIndex = i === at ? 0 : -1; }); }

  function fill(made, i) {
    columns.forEach((name, k) => {
      const value = view.values[k][i], cell = made.cells[k];
      const text = name === "overhead" ? percentText(value)
        : name === "samples" ? value.toLocaleString("en") : String(value);
      if (cell.textContent !== text) { cell.textContent = text; }
      if (name === "overhead") { cell.style.backgroundSize = `${Math.min(value, 100)}% 72%`; }
      if (name === "symbol" || name === "dso") { cell.title = text; }
      if (name === "mode") { cell.style.boxShadow = `inset 4px 0 ${act.colour(value)}`; }
    });
    const width = levels.length / (view.values[0].length || 1);
    const svg = made.trend.parentNode, over = `over ${Math.round(width * view.second)} s`;
    const peak = view.peaks[i] === null ? `of its own weight, ${over}`
      : `at most ${percentText(view.peaks[i])} of a bucket of ${view.second} s, ${over}`;
    svg.setAttribute("viewBox", `0 0 ${width} ${TREND_HEIGHT}`);
    svg.setAttribute("aria-label", `trend: ${peak}`);
    svg.parentNode.title = peak;
    made.trend.setAttribute("d", trendPath(levels.subarray(i * width, (i + 1) * width)));
  }

  /* Of the same view again no trends need be given. */
  function show(next, trends) {
    view = next;
    levels = trends || levels;
    setColumns(view.columns);
    const count = view.values.length ? view.values[0].length : 0;
    while (rows.length < count) { addRow(); }
    const focused = rows.findIndex(({ row }) => row === document.activeElement);
    rows.splice(count).forEach(({ row }) => row.remove());
    if (focused >= count) { act.hold(rows[count - 1] && rows[count - 1].row); }
    at = Math.max(0, Math.min(at, count - 1));
    rows.forEach((made, i) => fill(made, i));
    tabStop();
    const [down, name] = [view.sort[0] === "-", view.sort.replace(/^-/, "")];
    [...head.children].forEach((cell) => {
      const own = cell.textContent === name && cell.firstElementChild;
      const first = ["overhead", "samples"].includes(name) ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      if (own) { cell.setAttribute("aria-sort", down ? other : first); } else { cell.removeAttribute("aria-sort"); }
    });
  }

  function move(by) {
    if (!rows.length) { return; }
    const inside = body.contains(document.activeElement);
    at = inside ? Math.max(0, Math.min(at + by, rows.length - 1)) : at;
    rows[at].row.focus();
  }

  function pick(place) {
    const k = columns.indexOf("symbol");
    if (k >= 0) { act.pick(view.values[k][place]); }
  }

  return { show, move, body, pick: () => pick(at) };
}
