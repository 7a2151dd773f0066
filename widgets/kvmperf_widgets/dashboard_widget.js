/* The dashboard as a widget: what is filtered is the model's `filter`, either side may set it. */
/* The answer to "sums", which loader.js has asked for. */
async function sumsIn(answer) {
  const [view] = (await answer).buffers;
  return sumsOf(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
}

function openDashboard(model, host, data) {
  let later = 0;
  const shown = dashboard(data, host, model.get("theme"), { ...model.get("filter") }, (filter) => {
    model.set("filter", filter);
    clearTimeout(later);
    later = setTimeout(() => model.save_changes(), 150);
  }, { overTime: (filter, lane) => asked(model, "over time", unpacked, { filter, lane: lane ?? null }) });
  const follow = () => shown.show({ ...model.get("filter") });
  model.on("change:filter", follow);
  const id = model.get("picture");
  const beside = hidden(() => [...document.querySelectorAll(`.kvmp-of-${id}`), plotOf(`${id}-beside`)]);
  return () => {
    clearTimeout(later);
    model.off("change:filter", follow);
    beside();
    shown.close();
  };
}

/* Hides what is found now and later, until it is told to end. */
function hidden(find) {
  const found = new Set();
  const look = () => find().filter(Boolean).forEach((one) => {
    const output = one.closest(".jp-OutputArea-child") || one;
    if (!found.has(output)) { found.add(output); output.hidden = true; output.style.display = "none"; }
  });
  const watch = new MutationObserver(look);
  watch.observe(document.body, { childList: true, subtree: true });
  look();
  return () => {
    watch.disconnect();
    found.forEach((one) => { one.hidden = false; one.style.display = ""; });
  };
}

function initialize({ model, data }) {
  return standInWith(model, () => sumsIn(data), (host, sums) => openDashboard(model, host, sums));
}

async function render({ model, el, data }) { return openDashboard(model, el, await sumsIn(data)); }

export default { initialize, render };
