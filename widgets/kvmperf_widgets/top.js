const STRIP_HEIGHT = 64, LOOK = { machine: 0, filter: 0, sort: 0, count_filter: 0 };

function liveTop(host, model) {
  const look = model.get("look");
  const root = element("div", host, { className: "kvmp-x kvmp-l", tabIndex: -1 });
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "live view of host and guests. Slash filters, f freezes, " +
    "z forgets what was counted, d lets counts decay or not, p saves a snapshot, q stops; arrows " +
    "move between rows and machines, Enter filters for a row's symbol, Escape for nothing.");
  const headline = element("pre", root, { className: "kvmp-l-head" });
  const note = element("div", root, { className: "kvmp-x-about" });
  const tabs = element("div", root, { className: "kvmp-l-tabs" });
  tabs.setAttribute("role", "tablist");
  tabs.setAttribute("aria-label", "machines");
  const stage = element("div", root, { className: "kvmp-x-stage kvmp-l-strip" });
  const canvas = element("canvas", stage, {});
  canvas.setAttribute("role", "img");
  const tip = element("div", stage, { className: "kvmp-x-tip", hidden: true });
  const under = element("div", root, { className: "kvmp-x-about kvmp-l-legend" });
  const legend = element("span", under, {}), span = element("span", under, {});
  const bar = element("div", root, { className: "kvmp-x-bar" });
  const line = element("div", root, { className: "kvmp-x-about" });
  const found = element("span", line, { className: "kvmp-x-matched" });
  const counted = element("span", line, {});
  const said = element("span", line, { className: "kvmp-l-told" });
  said.setAttribute("role", "status");
  const context = canvas.getContext("2d");
  let view = null, strip = null, width = 300, dark = 0, wish = null;
  // `wish`: whether to be frozen, until the kernel agrees; a busy one may take long
  let later = 0, typed = null; // what of the inputs the kernel has not been told yet
  let sent = null; // the last view of the kernel, with its buffers
  const wanted = {}; // what the kernel has been told of a view, and not shown yet

  const set = (name, value) => {
    model.send({ type: "set", name, value });
    if (name in LOOK) {
      wanted[name] = value;
      again();
    }
  };
  const act = (name) => model.send({ type: "do", name });
  const filter = element("input", bar, { type: "search", placeholder: "filter: / regex",
    oninput: () => soon("filter", filter.value) });
  filter.setAttribute("aria-label", "regular expression for symbols, DSOs and commands");
  const least = element("input", bar, { type: "number", min: 0, placeholder: "more than … samples",
    oninput: () => soon("count_filter", least.value === "" ? null : Math.trunc(least.value)) });
  least.setAttribute("aria-label", "only rows of more than this number of samples");
  const button = (words, key, press) => element("button", bar,
    { type: "button", textContent: words, title: `key ${key}`, onclick: press });
  const freeze = button("freeze", "f or space", () => {
    wish = !(wish === null ? view.paused : wish);
    freeze.setAttribute("aria-pressed", String(wish));
    act(wish ? "pause" : "resume");
  });
  const decay = button("decay", "d", () => set("decay", !view.decay));
  decay.title += ": each refresh counts of all before 7/8; else nothing";
  const zero = button("zero", "z", () => act("zero"));
  const snapshot = button("snapshot", "p", () => { said.textContent = "saving ..."; act("snapshot"); });
  const stop = button("stop", "q", () => act("stop"));
  const table = liveTable(root, {
    sort: (name) => set("sort", view.sort === name ? `-${name}` : name),
    hold, colour: (mode) => (look.modes[mode] || ["", ""])[dark],
    pick: (symbol) => choose(`^${escapedPattern(symbol)}$`),
  });

  /* A focus that went with what had it would leave the next key to the notebook. */
  function hold(place) { (place || root).focus({ preventScroll: true }); }

  /* What is being typed, once it stands still. */
  function soon(name, value) {
    if (typed && typed.name !== name) { tell(); }
    clearTimeout(later);
    typed = { name, value };
    later = setTimeout(tell, 150);
  }

  function tell() {
    clearTimeout(later);
    if (typed) { set(typed.name, typed.value); }
    typed = null;
  }

  function choose(pattern) {
    filter.value = pattern;
    soon("filter", pattern);
    tell();
  }

  function take(content, buffers) {
    if (content.type === "said") {
      if (content.bad) { // the view is what it was
        delete wanted[content.about];
        again();
      }
      if (content.about === "filter") { filter.classList.toggle("kvmp-x-bad", content.bad); }
      if (content.text || content.bad || content.about !== "snapshot") { said.textContent = content.text; }
    } else if (content.type === "view" && (wish === null || content.paused === wish)) {
      sent = [content, buffers.map(bytesOf)];
      wish = null;
      for (const name of Object.keys(wanted)) { if (wanted[name] === content[name]) { delete wanted[name]; } }
      again();
    }
  }

  /* What the kernel has shown; until it shows what it has been told, the page makes that itself of
     what it has: a kernel that is busy with a cell hears no front end without subshells. */
  function again() {
    if (!sent) { return; }
    const [content, [trends, shares, ...pooled]] = sent;
    if (content.pool && Object.keys(wanted).length) {
      try {
        const look = { ...Object.fromEntries(Object.keys(LOOK).map((name) => [name, content[name]])), ...wanted };
        show(...viewOf(content, content.pool, ...pooled, look));
        return;
      } catch { // no regular expression, the kernel will say so
        filter.classList.add("kvmp-x-bad");
      }
    }
    show(content, [trends, shares]);
  }

  function show(next, [trends, shares]) {
    view = next;
    strip = shares;
    headline.textContent = view.header;
    note.textContent = view.note;
    if (!typed && document.activeElement !== filter) { filter.value = view.filter; }
    if (!typed && document.activeElement !== least) { least.value = view.count_filter === null ? "" : view.count_filter; }
    const shown = (view.values[0] || []).length;
    found.textContent = view.filter ? `${percentText(view.matched)} matched` : "";
    counted.textContent = `${shown} of ${view.found.toLocaleString("en")} rows ${view.of || ""} `;
    freeze.setAttribute("aria-pressed", String(wish === null ? view.paused : wish));
    decay.setAttribute("aria-pressed", String(view.decay));
    [freeze, decay, zero, stop].forEach((one) => {
      if (!view.running && one === document.activeElement) { hold(); }
      one.disabled = !view.running;
    });
    showTabs();
    paint();
    table.show(view, trends);
  }

  function showTabs() {
    while (tabs.children.length > view.tabs.length) { tabs.lastChild.remove(); }
    view.tabs.forEach(([key, name, share], i) => {
      const tab = tabs.children[i] || element("button", tabs, { type: "button" });
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-selected", String(key === view.machine));
      tab.tabIndex = key === view.machine ? 0 : -1;
      tab.onclick = () => set("machine", key);
      const words = share === null ? name : `${name} ${share.toFixed(1)} %`;
      if (tab.textContent !== words) { tab.textContent = words; }
    });
  }

  function nextTab(by) {
    const now = view.tabs.findIndex(([key]) => key === view.machine);
    const next = (now + by + view.tabs.length) % view.tabs.length;
    set("machine", view.tabs[next][0]);
    if (tabs.contains(document.activeElement)) { tabs.children[next].focus(); }
  }

  /* The share of each kind in a bucket, in percent; null where nothing was sampled. */
  function sharesAt(bucket) {
    const levels = view.kinds.map((_, k) => strip[k * view.buckets + bucket]);
    const sum = levels.reduce((a, b) => a + (b === NONE ? 0 : b), 0);
    return sum ? levels.map((level) => 100 * level / sum) : null;
  }

  function paint() {
    dark = isDark("auto") ? 1 : 0;
    setColours(root, look.themes[dark]);
    drawStrip();
    let latest = null;
    for (let i = view.buckets - 1; i >= 0 && !latest; i--) { latest = sharesAt(i); }
    while (legend.children.length > view.kinds.length) { legend.lastChild.remove(); }
    view.kinds.forEach((kind, k) => {
      const key = legend.children[k] || element("span", legend, { className: "kvmp-x-key" });
      if (!key.children.length) { element("i", key, {}); element("span", key, {}); }
      key.firstChild.style.background = look.modes[kind][dark];
      key.lastChild.textContent = `${kind} ${percentText(latest ? latest[k] : 0)}`;
    });
    span.textContent = `the last ${spanOf(view.buckets)}, now at the right`;
    canvas.setAttribute("aria-label", `shares of the modes over ${spanOf(view.buckets)}: ` +
      legend.textContent);
  }

  function spanOf(buckets) {
    const seconds = buckets * view.second;
    return seconds >= 120 ? `${parseFloat((seconds / 60).toFixed(1))} minutes` : `${Math.round(seconds)} s`;
  }

  function drawStrip() {
    width = Math.max(stage.clientWidth, 200);
    fitted(canvas, context, width, STRIP_HEIGHT);
    context.fillStyle = look.themes[dark].grid;
    context.globalAlpha = 0.35;
    context.fillRect(0, 0, width, STRIP_HEIGHT);
    context.globalAlpha = 1;
    const step = width / (view.buckets || 1);
    for (let bucket = 0; bucket < view.buckets; bucket++) {
      const shares = sharesAt(bucket), left = Math.round(bucket * step);
      let low = STRIP_HEIGHT;
      (shares || []).forEach((share, k) => {
        const high = low - share / 100 * STRIP_HEIGHT;
        context.fillStyle = look.modes[view.kinds[k]][dark];
        context.fillRect(left, high, Math.round((bucket + 1) * step) - left, low - high);
        low = high;
      });
    }
  }

  canvas.addEventListener("pointermove", (event) => {
    if (!view || !view.buckets) { return; }
    const x = event.clientX - stage.getBoundingClientRect().left;
    const bucket = Math.min(Math.max(Math.floor(x / width * view.buckets), 0), view.buckets - 1);
    const shares = sharesAt(bucket);
    tip.hidden = !shares;
    if (!shares) { return; }
    const ago = view.buckets - 1 - bucket;
    tip.textContent = [ago ? `${spanOf(ago)} ago` : "now",
      ...view.kinds.map((kind, k) => `${kind} ${percentText(shares[k])}`)].join("\n");
    tip.style.left = Math.max(0, Math.min(x + 14, width - tip.offsetWidth - 2)) + "px";
    tip.style.top = STRIP_HEIGHT + 4 + "px";
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });

  const keys = { f: () => freeze.click(), " ": () => freeze.click(), z: () => zero.click(),
    d: () => decay.click(), p: () => snapshot.click(), q: () => stop.click(),
    "/": () => { filter.focus(); filter.select(); }, Escape: () => choose(""),
    ArrowDown: () => table.move(1), ArrowUp: () => table.move(-1),
    Home: () => table.move(-view.found), End: () => table.move(view.found),
    ArrowLeft: () => nextTab(-1), ArrowRight: () => nextTab(1) };
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !view) { return; }
    event.stopPropagation(); // notebooks have plain keys of their own
    const typing = event.target.tagName === "INPUT", pressing = event.target.tagName === "BUTTON";
    if (typing && ["Escape", "Enter"].includes(event.key)) {
      if (event.key === "Escape" && event.target === filter) { choose(""); } else { tell(); }
      table.move(0);
    } else if (event.key === "Enter" && table.body.contains(event.target)) { table.pick();
    } else if (!typing && keys[event.key] && !(pressing && event.key === " ")) { keys[event.key]();
    } else { return; }
    event.preventDefault();
  });

  const repaint = () => { if (view) { paint(); table.show(view, null); } };
  const watch = new ResizeObserver(repaint);
  watch.observe(stage);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", repaint);
  const theme = new MutationObserver(repaint);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  model.on("msg:custom", take);
  return { take, close: () => {
    tell();
    watch.disconnect();
    theme.disconnect();
    scheme.removeEventListener("change", repaint);
    model.off("msg:custom", take);
    root.remove();
  } };
}

const asksForView = (model) => asked(model, "view", (...told) => told);

/* Opens with the first view that comes, whether it was asked for or not: a busy kernel may send
   views long before it answers. */
async function open(model, host) {
  const [content, buffers] = await asksForView(model);
  const top = liveTop(host, model);
  top.take(content, buffers);
  // JupyterLab's first message may be too early for the thread that hears it beside a busy cell
  const again = setTimeout(() => model.send({ type: "view" }), 1500);
  return () => { clearTimeout(again); top.close(); };
}

/* The output that holds the table of this view. */
function outputOf(id) {
  const mark = document.querySelector(`.kvmp-top-${id}`);
  return mark && (mark.closest(".jp-OutputArea-output, .output_subarea, .output_html") || mark);
}

function initialize({ model }) {
  return standInWith(model, () => asksForView(model), (host) => open(model, host), outputOf);
}

async function render({ model, el }) { return open(model, el); }

export default { initialize, render };
