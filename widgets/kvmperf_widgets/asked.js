/* The data come when they are asked for: they are no state, so that nothing saves them. A kernel
   that is just starting to hear beside its cells can miss a question: it is put again. */
async function asked(model, type, unpacked, more = {}) {
  await hearing(model);
  return new Promise((resolve) => {
    const ask = () => model.send({ type, ...more });
    const again = [1500, 6000, 20000].map((later) => setTimeout(ask, later));
    const take = (content, buffers) => {
      if (content.type === type) {
        again.forEach(clearTimeout);
        model.off("msg:custom", take);
        resolve(unpacked(content, buffers));
      }
    };
    model.on("msg:custom", take);
    ask();
  });
}

/* anywidget drops what comes for a model, for good, if the script was not there within 2 s, and a
   page that has much to draw takes longer: what comes goes past it, as ipywidgets has it. */
async function hearing(model) {
  const manager = model.widget_manager, own = model.get("own");
  if (!manager || !own || !manager.has_model(own)) { return; }
  const found = await manager.get_model(own);
  const take = Object.getPrototypeOf(Object.getPrototypeOf(found))._handle_comm_msg;
  if (found.comm && take) { found.comm.on_msg((message) => take.call(found, message)); }
}
