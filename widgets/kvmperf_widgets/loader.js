/* The script of a big widget comes when it is asked for: it is no state, so that nothing saves it. */
function scriptOf(model) {
  return new Promise((resolve) => {
    const take = (content) => {
      if (content.type === "script") {
        model.off("msg:custom", take);
        resolve(content.script);
      }
    };
    model.on("msg:custom", take);
    model.send({ type: "script" });
  });
}

async function loaded(model) {
  const address = URL.createObjectURL(new Blob([await scriptOf(model)], { type: "text/javascript" }));
  try { return (await import(address)).default; } finally { URL.revokeObjectURL(address); }
}

/* Nothing is waited for: a kernel that is busy answers later than a front end has patience. */
function initialize({ model }) {
  let ended = false, end = () => {};
  loaded(model).then((widget) => { if (!ended) { end = widget.initialize({ model }); } });
  return () => {
    ended = true;
    end();
  };
}

async function render(context) { return (await loaded(context.model)).render(context); }

export default { initialize, render };
