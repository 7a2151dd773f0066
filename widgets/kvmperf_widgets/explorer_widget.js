/* The explorer as a widget: in the place of a saved picture, or in a page of its own. What is
   clicked in a picture that is linked to it is searched for. */
function opened(model, host, data) {
  const lanes = data.lanes || [];
  const overTime = (lane) => asked(model, "over time", unpacked, { lane });
  const shaped = (shape) => asked(model, "shape", unpacked, shape);
  const shown = explore(data, host, model.get("theme"), {
    ...(lanes.length ? { overTime } : {}), ...(data.shape && data.shape.known ? { shaped } : {}) });
  const hear = ({ detail }) => {
    if (detail.link && detail.link === model.get("link")) { shown.search(detail.pattern); }
  };
  document.addEventListener("kvmperf-search", hear);
  return () => {
    document.removeEventListener("kvmperf-search", hear);
    shown.close();
  };
}

function initialize({ model }) {
  return standInWith(model, () => asked(model, "tree", unpacked),
    (host, data) => opened(model, host, data));
}

async function render({ model, el }) {
  return opened(model, el, await asked(model, "tree", unpacked));
}

export default { initialize, render };
