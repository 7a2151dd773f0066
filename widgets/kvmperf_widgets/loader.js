/* The script of a big widget comes when it is asked for: it is no state, so that nothing saves it.
   Its data are asked for in the same breath, so that they are made while the script is read. */
function answer(model, type) {
  return new Promise((resolve) => {
    const take = (content, buffers) => {
      if (content.type === type) {
        model.off("msg:custom", take);
        resolve({ content, buffers });
      }
    };
    model.on("msg:custom", take);
    model.send({ type });
  });
}

async function loaded(model) {
  const script = answer(model, "script"), data = answer(model, "sums");
  const text = (await script).content.script;
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
