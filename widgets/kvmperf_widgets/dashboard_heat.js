/* The heat map of a dashboard: its columns stand among the others, a range dragged over it is the
   time of the filter, in whole steps. `change(range)`: [first, last] step or undefined. */
function heatOf(data, column) {
  const named = (name) => column[`heat ${name}`];
  const { heat: told } = data;
  return { ...told, cells: told.columns * told.rows, levels: named("levels"), weight: named("weight"),
    samples: named("samples"), part: named("part"), partSamples: named("partSamples") };
}

function timeHeat(data, host, change) {
  if (!data.heat) { return { show() {}, close() {} }; }
  let range = null, follow = () => {};
  const step = (second, round) => Math.min(Math.max(
    round((second - data.start) / data.width), 0), data.steps - 1);
  const close = heat(data.heat, host, {
    get: () => (range ? range.map((at) => data.start + at * data.width) : []),
    set: (_, [from, until]) => change(from === undefined ? undefined
      : [step(from, (x) => Math.floor(x + 1e-6)), step(until, (x) => Math.ceil(x - 1e-6) - 1)]),
    save_changes() {},
    on: (_, hear) => { follow = hear; },
    off() {},
  });
  return {
    show({ time }) {
      range = time ? [time[0], time[1] + 1] : null;
      follow();
    },
    close,
  };
}
