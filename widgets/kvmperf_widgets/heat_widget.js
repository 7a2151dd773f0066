/* The heat map as a widget: `selected` of its model is [] or [from, until] in seconds. */
/* Its message: a header, and [columns][rows] as buffers. */
function cellsOf(header, buffers) {
  const array = (Kind, view) =>
    view && new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const [levels, weight, samples, part, partSamples] = buffers;
  return { ...header, levels: array(Uint8Array, levels), weight: array(Float64Array, weight),
    samples: array(Float64Array, samples), part: array(Float64Array, part),
    partSamples: array(Float64Array, partSamples), cells: header.columns * header.rows };
}

function initialize({ model }) {
  return standInWith(model, () => asked(model, "cells", cellsOf), (host, data) => heat(data, host, model));
}

async function render({ model, el }) { return heat(await asked(model, "cells", cellsOf), el, model); }

export default { initialize, render };
