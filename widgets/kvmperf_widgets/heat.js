/* A heat map of time. `data` are the columns of its cells, `model` has what is selected of it, in
   seconds: get("selected"), set(), save_changes(), on() and off() as those of a widget. */
const HEAT_LEFT = 62, HEAT_RIGHT = 14, HEAT_TOP = 6, HEAT_FOOT = 24, HEAT_HEIGHT = 320, NO_LEVEL = 255;
const HEAT_FONT = "11px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace";

function spanText(seconds) {
  const whole = [[86400, "d"], [3600, "h"], [60, "min"]].find(([limit]) =>
    seconds >= limit && Number.isInteger(Number((seconds / limit).toFixed(6))));
  return whole ? `${Math.round(seconds / whole[0])} ${whole[1]}` : amountText(seconds * 1e9, "ns");
}

/* Multiples of 1, 2 or 5 times a power of ten, at most about `most`: axis.py's ticks(). */
function ticksOf(low, high, most) {
  const power = 10 ** Math.floor(Math.log10((high - low) / most));
  const step = [1, 2, 5, 10].map((k) => k * power).find((one) => (high - low) / one <= most);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n <= high / step + 1e-9; n++) { found.push(n * step); }
  return [found, step];
}

function heat(data, host, model) {
  const root = element("div", host, { className: "kvmp-x kvmp-h" });
  element("div", root, { className: "kvmp-x-title", textContent: data.title });
  const about = element("div", root, { className: "kvmp-x-about" });
  const bar = element("div", root, { className: "kvmp-x-bar" });
  const legend = element("span", bar, { className: "kvmp-x-about" });
  const all = element("button", bar, { type: "button", textContent: "all of it",
    title: "key Escape", onclick: () => choose(null) });
  const chosen = element("div", root, {});
  const stage = element("div", root, { className: "kvmp-x-stage" });
  const canvas = element("canvas", stage, { tabIndex: 0 });
  const tip = element("div", stage, { className: "kvmp-x-tip", hidden: true });
  const said = element("div", root, { className: "kvmp-x-said" });
  said.setAttribute("aria-live", "polite");
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${data.title}: heat map of ${data.columns} columns of ` +
    `${spanText(data.cell * data.rows)}. Arrows move between cells, with shift they select, ` +
    "Enter selects the column, Control and A everything, Escape nothing.");
  canvas.style.cursor = "crosshair";
  chosen.style.cssText = "font-weight:600;min-height:1.5em;margin:4px 0"; // the map stays where it is
  about.textContent = data.subtitle;
  const context = canvas.getContext("2d"), digits = placesOf(data.cell);
  // cells are counted in time, up each column; a range is [first, last] of them
  let range = null, anchor = 0, cursor = null, grip = null, width = 400, drawn = false, later = 0;
  let colours = null, map = null;

  const timeOf = (cell) => Number((data.start + cell * data.cell).toFixed(9)); // whole ns
  const timeText = (cell) => `${timeOf(cell).toFixed(digits)} s`;

  function sums(first, last) {
    const found = { samples: 0, weight: 0, part: 0, partSamples: 0 };
    for (let cell = first; cell <= last; cell++) {
      found.samples += data.samples[cell];
      found.weight += data.weight[cell];
      if (data.part) { found.part += data.part[cell]; found.partSamples += data.partSamples[cell]; }
    }
    return found;
  }

  function lines(first, last) {
    const sum = sums(first, last), counted = sum.samples.toLocaleString("en");
    const found = [`${timeText(first)} to ${timeText(last + 1)}`,
      `${counted} sample${sum.samples === 1 ? "" : "s"}` +
        (data.unit === "samples" ? "" : `, ${amountText(sum.weight, data.unit)}`)];
    if (data.part && sum.weight > 0) {
      found.push(`${data.name}: ${percentText(100 * sum.part / sum.weight)}, ` +
        `${sum.partSamples.toLocaleString("en")} of the samples`);
    }
    return found;
  }

  const columnWidth = () => (width - HEAT_LEFT - HEAT_RIGHT) / data.columns;
  const rowHeight = () => HEAT_HEIGHT / data.rows;
  const place = (cell) => ({ x: HEAT_LEFT + Math.floor(cell / data.rows) * columnWidth(),
    y: HEAT_TOP + HEAT_HEIGHT - (cell % data.rows + 1) * rowHeight() });

  function paint() {
    const dark = isDark(data.theme) ? 1 : 0;
    colours = { ...data.themes[dark], shades: data.shades[dark] };
    setColours(root, colours);
    legend.replaceChildren();
    if (!data.columns) { legend.append("no samples"); draw(); return; }
    colours.shades.forEach((shade) => { square(shade, 16); });
    legend.append(` ${data.scale}\u2003`);
    square(colours.background, 12).style.outline = `1px solid ${colours.grid}`;
    legend.append(" no samples");
    map = painted();
    draw();
  }

  function square(colour, size) {
    const made = element("i", legend, {});
    made.style.cssText = `display:inline-block;width:${size}px;height:12px;vertical-align:-1px`;
    made.style.background = colour;
    return made;
  }

  /* The cells, a pixel each. */
  function painted() {
    const small = document.createElement("canvas");
    [small.width, small.height] = [data.columns, data.rows];
    const pixels = new ImageData(small.width, small.height);
    const known = colours.shades.map((shade) => [1, 3, 5].map((i) => parseInt(shade.slice(i, i + 2), 16)));
    for (let cell = 0; cell < data.cells; cell++) {
      const level = data.levels[cell], column = Math.floor(cell / data.rows);
      if (level !== NO_LEVEL) {
        const row = data.rows - 1 - cell % data.rows;
        pixels.data.set([...known[level], 255], 4 * (row * data.columns + column));
      }
    }
    small.getContext("2d").putImageData(pixels, 0, 0);
    return small;
  }

  function resize() {
    width = Math.max(stage.clientWidth, 300);
    fitted(canvas, context, width, HEAT_TOP + HEAT_HEIGHT + HEAT_FOOT);
    drawn = false;
  }

  function draw() {
    if (!drawn) { drawn = true; requestAnimationFrame(drawNow); }
  }

  function drawNow() {
    drawn = false;
    const start = performance.now();
    context.globalAlpha = 1;
    context.fillStyle = colours.background;
    context.fillRect(0, 0, width, HEAT_TOP + HEAT_HEIGHT + HEAT_FOOT);
    context.font = HEAT_FONT;
    axes();
    context.imageSmoothingEnabled = false;
    if (map) { context.drawImage(map, HEAT_LEFT, HEAT_TOP, width - HEAT_LEFT - HEAT_RIGHT, HEAT_HEIGHT); }
    if (range) { veil(0, range[0] - 1); veil(range[1] + 1, data.cells - 1); outline(range); }
    if (cursor !== null) {
      const { x, y } = place(cursor);
      context.strokeStyle = colours.ink;
      context.lineWidth = 2;
      context.strokeRect(x, y, columnWidth(), rowHeight());
    }
    root.dataset.drawn = (performance.now() - start).toFixed(2);
  }

  function axes() {
    context.fillStyle = context.strokeStyle = colours.muted;
    context.lineWidth = 1;
    context.strokeRect(HEAT_LEFT - 0.5, HEAT_TOP - 0.5, width - HEAT_LEFT - HEAT_RIGHT + 1, HEAT_HEIGHT + 1);
    context.textBaseline = "middle";
    context.textAlign = "right";
    const column = data.cell * data.rows;
    ticksOf(0, column, 5)[0].forEach((at) => {
      const y = HEAT_TOP + HEAT_HEIGHT * (1 - at / column);
      context.fillText(at ? spanText(at) : "0", HEAT_LEFT - 7, Math.min(Math.max(y, 8), HEAT_TOP + HEAT_HEIGHT - 4));
    });
    if (!data.columns) { return; }
    context.textBaseline = "top";
    context.textAlign = "center";
    const [marks, step] = ticksOf(data.start, timeOf(data.cells), Math.min(10, width / 90));
    marks.forEach((at) => {
      const x = HEAT_LEFT + (at - data.start) / column * columnWidth();
      context.fillRect(x, HEAT_TOP + HEAT_HEIGHT + 1, 1, 4);
      context.fillText(`${at.toFixed(placesOf(step))} s`, Math.min(x, width - 26), HEAT_TOP + HEAT_HEIGHT + 8);
    });
  }

  /* A range as boxes: part of a column, whole ones, part of a column. */
  function boxes(first, last) {
    if (first > last) { return []; }
    const [a, b] = [Math.floor(first / data.rows), Math.floor(last / data.rows)];
    const whole = (from, to, low, high) => [HEAT_LEFT + from * columnWidth(),
      HEAT_TOP + HEAT_HEIGHT - (high + 1) * rowHeight(), (to - from + 1) * columnWidth(),
      (high - low + 1) * rowHeight()];
    const top = data.rows - 1, low = first % data.rows, high = last % data.rows;
    if (a === b) { return [whole(a, a, low, high)]; }
    const found = [whole(a, a, low, top), whole(b, b, 0, high)];
    if (b > a + 1) { found.push(whole(a + 1, b - 1, 0, top)); }
    return found;
  }

  function veil(first, last) {
    context.globalAlpha = 0.62;
    context.fillStyle = colours.background;
    boxes(first, last).forEach((box) => context.fillRect(...box));
    context.globalAlpha = 1;
  }

  function outline([first, last]) {
    const from = place(first), until = place(last), wide = columnWidth();
    const bottom = HEAT_TOP + HEAT_HEIGHT, low = from.y + rowHeight();
    const corners = from.x === until.x
      ? [[from.x, low], [from.x, until.y], [from.x + wide, until.y], [from.x + wide, low]]
      : [[from.x, low], [from.x, HEAT_TOP], [until.x, HEAT_TOP], [until.x, until.y], [until.x + wide, until.y],
        [until.x + wide, bottom], [from.x + wide, bottom], [from.x + wide, low]];
    context.strokeStyle = colours.ink;
    context.lineWidth = 1.5;
    context.beginPath();
    corners.forEach((corner) => context.lineTo(...corner));
    context.closePath();
    context.stroke();
  }

  function cellAt(event) {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - HEAT_LEFT) / columnWidth());
    const row = Math.floor((HEAT_TOP + HEAT_HEIGHT - (event.clientY - box.top)) / rowHeight());
    if (!grip && (column < 0 || column >= data.columns || row < 0 || row >= data.rows)) { return null; }
    const within = (value, most) => Math.min(Math.max(value, 0), most - 1);
    return within(column, data.columns) * data.rows + within(row, data.rows);
  }

  /* Shows a range; `tell`: the kernel hears of it, once it rests. */
  function choose(found, tell = true) {
    range = found && [Math.min(...found), Math.max(...found)];
    chosen.textContent = range ? lines(...range).join(" \u00b7 ") : "";
    all.disabled = !range;
    draw();
    if (!tell) { return; }
    clearTimeout(later);
    later = setTimeout(() => {
      model.set("selected", range ? [timeOf(range[0]), timeOf(range[1] + 1)] : []);
      model.save_changes();
    }, 150);
  }

  /* What the kernel has selected, shown. */
  function follow() {
    const [from, until] = model.get("selected") || [];
    if (from === undefined) { choose(null, false); return; }
    const cell = (at, round) => Math.min(Math.max(
      round((at - data.start) / data.cell), 0), data.cells - 1);
    choose([cell(from, (x) => Math.floor(x + 1e-6)), cell(until, (x) => Math.ceil(x - 1e-6) - 1)], false);
  }

  function tipAt(event, cell) {
    tip.hidden = cell === null;
    if (cell === null) { return; }
    tip.textContent = lines(cell, cell).join("\n");
    const box = stage.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    tip.style.left = Math.max(0, Math.min(x + 14, width - tip.offsetWidth - 2)) + "px";
    tip.style.top = (y > HEAT_HEIGHT - 60 ? y - tip.offsetHeight - 8 : y + 18) + "px";
  }

  canvas.addEventListener("pointerdown", (event) => {
    const cell = event.button === 0 ? cellAt(event) : null;
    if (cell === null) { return; }
    grip = { x: event.clientX, y: event.clientY, moved: event.shiftKey };
    if (!event.shiftKey) { anchor = cell; }
    cursor = cell;
    if (event.shiftKey) { choose([anchor, cell], false); }
    canvas.setPointerCapture(event.pointerId);
    tip.hidden = true;
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    const cell = data.cells ? cellAt(event) : null;
    if (!grip) { tipAt(event, cell); return; }
    grip.moved = grip.moved || Math.abs(event.clientX - grip.x) + Math.abs(event.clientY - grip.y) > 4;
    if (grip.moved) { cursor = cell; choose([anchor, cell], false); }
  });
  canvas.addEventListener("pointerup", () => {
    if (!grip) { return; }
    if (grip.moved) { choose([anchor, cursor]); } else { chooseColumn(); }
    grip = null;
    canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });

  function chooseColumn() {
    const first = cursor - cursor % data.rows;
    choose([first, first + data.rows - 1]);
  }

  function step(by, extend) {
    cursor = cursor === null ? 0 : Math.min(Math.max(cursor + by, 0), data.cells - 1);
    if (extend) { choose([anchor, cursor]); } else { anchor = cursor; }
    said.textContent = (extend ? lines(...range) : lines(cursor, cursor)).join(", ");
    draw();
  }

  root.addEventListener("keydown", (event) => {
    const held = event.ctrlKey || event.metaKey || event.altKey;
    const everything = event.key === "a" && held && !event.altKey;
    if (held && !everything) { return; }
    event.stopPropagation(); // notebooks have plain keys of their own
    if (event.target !== canvas || !data.cells) { return; }
    const moves = { ArrowUp: 1, ArrowDown: -1, ArrowRight: data.rows, ArrowLeft: -data.rows,
      Home: -data.cells, End: data.cells };
    if (moves[event.key]) { step(moves[event.key], event.shiftKey);
    } else if (event.key === "Enter" && cursor !== null) { chooseColumn();
    } else if (event.key === "Escape") { choose(null);
    } else if (everything) { choose([0, data.cells - 1]);
    } else { return; }
    event.preventDefault();
  });

  const watch = new ResizeObserver(() => { resize(); draw(); });
  watch.observe(stage);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", paint);
  const themed = new MutationObserver(paint); // JupyterLab says its theme on the body
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  model.on("change:selected", follow);
  resize();
  paint();
  follow();
  return () => {
    clearTimeout(later);
    watch.disconnect();
    scheme.removeEventListener("change", paint);
    themed.disconnect();
    model.off("change:selected", follow);
    root.remove();
  };
}
