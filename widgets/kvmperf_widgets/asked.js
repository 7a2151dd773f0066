/* The data come when they are asked for: they are no state, so that nothing saves them. A kernel
   that is just starting to hear beside its cells can miss a question: it is put again. */
function asked(model, type, unpacked, more = {}) {
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
