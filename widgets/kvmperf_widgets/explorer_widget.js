/* The explorer as a widget: in the place of a saved picture, or in a page of its own. */
function initialize({ model }) {
  let data = null;
  return standIn(model, async (host) => {
    data = data || asked(model, "tree", unpacked);
    return explore(await data, host, model.get("theme")).close;
  });
}

async function render({ model, el }) {
  return explore(await asked(model, "tree", unpacked), el, model.get("theme")).close;
}

export default { initialize, render };
