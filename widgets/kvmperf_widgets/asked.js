/* The data come when they are asked for: they are no state, so that nothing saves them. A kernel
   that is just starting to hear beside its cells can miss a question: it is put again. */
let questions = 0; // an answer says which it is `of`: another one may have been put meanwhile

function asked(model, type, unpacked, more = {}) {
  const of = ++questions;
  return new Promise((resolve) => {
    const ask = () => model.send({ type, of, ...more });
    const again = [1500, 6000, 20000].map((later) => setTimeout(ask, later));
    const take = (content, buffers) => {
      if (content.type === type && (content.of === undefined || content.of === of)) {
        again.forEach(clearTimeout);
        model.off("msg:custom", take);
        resolve(unpacked(content, buffers));
      }
    };
    model.on("msg:custom", take);
    ask();
  });
}
