/* The script of a big widget comes when it is asked for: it is no state, so that nothing saves it.
   Its data are asked for in the same breath, so that they are made while the script is read. */
async function loaded(model) {
  const script = asked(model, "script", (content) => content.script);
  const data = asked(model, "sums", (content, buffers) => ({ content, buffers }));
  const text = await script;
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try { return [(await import(address)).default, data]; } finally { URL.revokeObjectURL(address); }
}

/* Nothing is waited for: a kernel that is busy answers later than a front end has patience. */
function initialize({ model }) {
  let ended = false, end = () => {};
  if (model.get("picture")) {
    loaded(model).then(([widget, data]) => { if (!ended) { end = widget.initialize({ model, data }); } });
  }
  return () => {
    ended = true;
    end();
  };
}

async function render({ model, el }) {
  const [widget, data] = await loaded(model);
  return widget.render({ model, el, data });
}

export default { initialize, render };
