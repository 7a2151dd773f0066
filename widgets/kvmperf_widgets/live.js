/* What every live picture of this package needs; stands before the script of each. */
function element(kind, parent, properties) {
  const made = Object.assign(document.createElement(kind), properties);
  parent.append(made);
  return made;
}

function percentText(share) {
  return (Math.abs(share) >= 0.01 || share === 0 ? share.toFixed(2) : share.toFixed(4)) + " %";
}

function amountText(value, unit) {
  const time = /^(.*?) ?\bns$/.exec(unit);
  const steps = time ? [[1e9, " s"], [1e6, " ms"], [1e3, " us"], [1, " ns"]]
    : [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"], [1, ""]];
  const [limit, suffix] = steps.find(([least]) => value >= least) || [1, time ? " ns" : ""];
  const divisor = suffix === "k" ? 1e3 : limit;
  return `${parseFloat((value / divisor).toPrecision(4))}${suffix} ${time ? time[1] : unit}`.trim();
}

/* The digits behind the point that tell multiples of a step apart. */
function placesOf(step) {
  for (let digits = 0; digits < 9; digits++) {
    if (Math.abs(Number(step.toFixed(digits)) - step) < 1e-6 * step) { return digits; }
  }
  return 9;
}

function isDark(theme) {
  if (theme !== "auto") { return theme === "dark"; }
  const light = document.body.dataset.jpThemeLight;
  if (light) { return light === "false"; }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function setColours(root, theme) {
  for (const name of ["background", "ink", "muted", "grid"]) {
    root.style.setProperty(`--kvmp-${name}`, theme[name]);
  }
}

/* Gives a canvas this size in CSS pixels, sharp on any screen. */
function fitted(canvas, context, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
}

/* In an output of a cell, whatever the front end: plotly lays copies elsewhere for images. */
function plotOf(id) {
  return Array.from(document.querySelectorAll("[class*=output i] .js-plotly-plot")).find(
    (one) => one.layout && one.layout.meta && one.layout.meta.kvmperf === id);
}

/* The picture of the same notebook output: what `open` shows (it gives what closes it) stands in
   its place, which `find` finds, as long as the widget lives; what is saved stays the picture. */
function standIn(model, open, find = plotOf) {
  const id = model.get("picture");
  let ended = false, taken = null, end = null;
  const look = async () => {
    const place = find(id);
    if (!place || ended || place === taken) { return; }
    if (end) { end(); }
    taken = place;
    const host = document.createElement("div");
    host.style.width = "100%";
    place.before(host);
    const close = await open(host);
    if (ended || place !== taken) { close(); host.remove(); return; } // meanwhile
    place.style.display = "none";
    end = () => { close(); host.remove(); place.style.display = ""; };
  };
  const watch = new MutationObserver(look);
  if (id) {
    watch.observe(document.body, { childList: true, subtree: true });
    look();
  }
  return () => { ended = true; watch.disconnect(); if (end) { end(); } };
}

/* As `standIn`, once the data that were asked for are there: a widget that a notebook was saved
   with has nobody to ask, and its picture stays. */
function standInWith(model, data, open, find = plotOf) {
  let ended = false, end = () => {};
  if (model.get("picture")) {
    data().then((found) => {
      if (!ended) { end = standIn(model, async (host) => open(host, found), find); }
    });
  }
  return () => { ended = true; end(); };
}
