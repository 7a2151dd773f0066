/* The strip of time: what was sampled when, stacked by mode; a range dragged over it filters. */
const STRIP_LEFT = 4, STRIP_RIGHT = 4, STRIP_HEIGHT = 64, STRIP_FOOT = 20;

/* `change(range)`: [first, last] step or undefined. */
function timeStrip(data, host, change, colours) {
  const digits = placesOf(data.width), steps = data.steps;
  const stage = element("div", host, { className: "kvmp-x-stage kvmp-d-strip" });
  const canvas = element("canvas", stage, { tabIndex: 0 });
  const tip = element("div", stage, { className: "kvmp-x-tip", hidden: true });
  const said = element("div", host, { className: "kvmp-x-said" });
  said.setAttribute("aria-live", "polite");
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `samples over time in ${steps} steps of ${timeText(data.width)}. ` +
    "Arrows move, with shift they select a range, Control and A selects everything, Escape nothing.");
  canvas.style.cursor = "crosshair";
  const context = canvas.getContext("2d");
  let strip = [], range = null, cursor = null, anchor = 0, grip = null, width = 400, drawn = false;

  const at = (step) => Number((data.start + step * data.width).toFixed(9)); // whole ns
  function timeText(seconds) { return `${seconds.toFixed(digits)} s`; }
  const words = ([first, last]) => `${timeText(at(first))} to ${timeText(at(last + 1))}`;
  const place = (step) => STRIP_LEFT + step / steps * (width - STRIP_LEFT - STRIP_RIGHT);

  /* More steps than can be seen are drawn several as one, from a step that many divide. */
  const together = () => (steps > width / 2 ? Math.ceil(2 * steps / width) : 1);
  const barOf = (step) => {
    const each = together(), first = step - step % each;
    return [first, Math.min(first + each, steps) - 1];
  };

  function sumOf(of, [first, last]) {
    let sum = 0;
    for (let step = first; step <= last; step++) { sum += of[step]; }
    return sum;
  }

  function lines(step) {
    const bar = barOf(step), sums = strip.map((of) => sumOf(of, bar));
    const whole = sums.reduce((sum, one) => sum + one, 0);
    return [words(bar), ...sums.map((sum, kind) => [sum, data.kinds[kind]])
      .filter(([sum]) => sum > 0).sort(([a], [b]) => b - a)
      .map(([sum, kind]) => `${kind} ${percentText(100 * sum / whole)}, ${amountText(sum, colours.unit())}`)];
  }

  function draw() { if (!drawn) { drawn = true; requestAnimationFrame(drawNow); } }

  function drawNow() {
    drawn = false;
    const theme = colours.theme();
    context.globalAlpha = 1;
    context.fillStyle = theme.background;
    context.fillRect(0, 0, width, STRIP_HEIGHT + STRIP_FOOT);
    const each = together(), bars = [];
    for (let step = 0; step < steps; step += each) {
      const bar = barOf(step);
      bars.push([bar, strip.map((of) => sumOf(of, bar) * each / (bar[1] - bar[0] + 1))]);
    }
    const most = Math.max(0, ...bars.map(([, sums]) => sums.reduce((sum, one) => sum + one, 0)));
    for (const [[first, last], sums] of most > 0 ? bars : []) {
      const left = place(first), room = place(last + 1) - left, wide = Math.max(room - (room > 3 ? 0.6 : 0), 0.5);
      let top = STRIP_HEIGHT;
      context.globalAlpha = range && (last < range[0] || first > range[1]) ? 0.25 : 1;
      sums.forEach((sum, kind) => {
        const high = sum / most * (STRIP_HEIGHT - 4);
        if (high <= 0) { return; }
        context.fillStyle = colours.mode(data.kinds[kind]);
        context.fillRect(left, top - high, wide, high);
        top -= high;
      });
    }
    context.globalAlpha = 1;
    context.fillStyle = theme.grid;
    context.fillRect(STRIP_LEFT, STRIP_HEIGHT, width - STRIP_LEFT - STRIP_RIGHT, 1);
    context.strokeStyle = theme.ink;
    if (range) { outline(range, 1.5); }
    if (cursor !== null) { outline([cursor, cursor], 1); }
    axis(theme);
  }

  function outline([first, last], line) {
    context.lineWidth = line;
    context.strokeRect(place(first), 1, Math.max(place(last + 1) - place(first), 1), STRIP_HEIGHT - 1);
  }

  function axis(theme) {
    context.fillStyle = theme.muted;
    context.font = "11px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif";
    context.textBaseline = "top";
    const span = data.width * steps, most = Math.max(2, Math.min(10, width / 90));
    const power = 10 ** Math.floor(Math.log10(span / most));
    const step = [1, 2, 5, 10].map((k) => k * power).find((one) => span / one <= most);
    for (let n = Math.ceil(data.start / step - 1e-9); n * step <= data.start + span * (1 + 1e-9); n++) {
      const x = place((n * step - data.start) / data.width);
      context.fillRect(Math.min(x, width - 1), STRIP_HEIGHT, 1, 4);
      context.textAlign = x < 24 ? "left" : x > width - 24 ? "right" : "center";
      context.fillText(`${(n * step).toFixed(placesOf(step))} s`, Math.min(Math.max(x, 1), width - 1), STRIP_HEIGHT + 6);
    }
  }

  function stepAt(event) {
    const share = (event.clientX - canvas.getBoundingClientRect().left - STRIP_LEFT) / (width - STRIP_LEFT - STRIP_RIGHT);
    return Math.min(Math.max(Math.floor(share * steps), 0), steps - 1);
  }

  function choose(from, until) {
    range = [Math.min(from, until), Math.max(from, until)];
    said.textContent = words(range);
    draw();
    change(range);
  }

  function nothing() {
    range = null;
    said.textContent = "all of the time";
    draw();
    change(undefined);
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) { return; }
    grip = { x: event.clientX, moved: event.shiftKey };
    cursor = stepAt(event);
    if (event.shiftKey) { choose(anchor, cursor); } else { anchor = cursor; }
    canvas.setPointerCapture(event.pointerId);
    tip.hidden = true;
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    const step = stepAt(event);
    if (!grip) { show(event, step); return; }
    grip.moved = grip.moved || Math.abs(event.clientX - grip.x) > 3;
    if (grip.moved && !(range && step === cursor)) { cursor = step; choose(anchor, step); }
  });
  canvas.addEventListener("pointerup", () => {
    if (grip && !grip.moved) { if (range) { nothing(); } else { draw(); } }
    grip = null;
    canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("blur", () => { cursor = null; draw(); });

  function show(event, step) {
    tip.hidden = false;
    tip.textContent = lines(step).join("\n");
    const x = event.clientX - stage.getBoundingClientRect().left;
    tip.style.left = Math.max(0, Math.min(x + 14, width - tip.offsetWidth - 2)) + "px";
    tip.style.top = STRIP_HEIGHT + STRIP_FOOT + "px";
  }

  canvas.addEventListener("keydown", (event) => {
    const held = event.ctrlKey || event.metaKey;
    if (event.altKey || held && event.key !== "a") { return; }
    const moves = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -steps, End: steps };
    if (event.key === "a" && held) { choose(0, steps - 1);
    } else if (event.key === "Escape") { nothing();
    } else if (moves[event.key]) {
      cursor = cursor === null ? anchor : Math.min(Math.max(cursor + moves[event.key], 0), steps - 1);
      if (event.shiftKey) { choose(anchor, cursor); } else {
        anchor = cursor;
        said.textContent = lines(cursor).join(", ");
        draw();
      }
    } else { return; }
    event.preventDefault();
    event.stopPropagation();
  });

  const watch = new ResizeObserver(() => {
    width = Math.max(stage.clientWidth, 200);
    fitted(canvas, context, width, STRIP_HEIGHT + STRIP_FOOT);
    drawNow();
  });
  watch.observe(stage);
  return {
    show(filter, found) { strip = found.strip; range = filter.time || null; draw(); },
    draw, words,
    close() { watch.disconnect(); },
  };
}
