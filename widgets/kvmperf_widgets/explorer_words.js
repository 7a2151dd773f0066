/* What is told of a place in a View: lines, the name first. */
function partText(part, whole) { return percentText(whole ? 100 * part / whole : 0); }

function wordsOf(view, place) {
  const { data } = view, frame = view.frame(place);
  const told = data.changes ? changeOf(data, frame, place, view) : weightOf(view, place);
  const kind = [data.kinds[data.kind[frame]], data.details[data.detail[frame]]];
  return [view.name(place), ...told, kind.filter(Boolean).join(" \u00b7 "), labelsOf(view, place)]
    .filter(Boolean);
}

function weightOf(view, { half, node }) {
  const { tree } = half, { unit } = view.data, own = tree.self[node], all = view.data.tree.total[0];
  return [`${amountText(tree.total[node], unit)}: ${sharesOf(view, tree.total[node], all)}`,
    own && !view.flipped(half) ? `self ${amountText(own, unit)} (${partText(own, all)})` : ""];
}

function sharesOf(view, total, all) {
  const zoomed = view.zoomed.half.tree.total[view.zoomed.node];
  return `${partText(total, all)} of all, ${partText(total, zoomed)} of the zoomed frame`;
}

/* Both shares of two profiles, the change and how certain it is. */
function changeOf(data, frame, { half, node }, view) {
  const { baseline, other, delta, low, high, significant, names, confidence } = data.changes;
  const mark = data.marks[frame], signed = (value) => (value < 0 ? "" : "+") + value.toFixed(2);
  const before = mark === 1 ? "\u2014" : percentText(baseline[frame]);
  const after = mark === 2 ? "\u2014" : percentText(other[frame]);
  return [`${before} \u2192 ${after} (${signed(delta[frame])} points, ${names.join(" \u2192 ")})`,
    `${confidence} % interval ${signed(low[frame])} \u2026 ${signed(high[frame])} points` +
      (significant[frame] ? "" : ", not significant"),
    mark ? `only in ${names[mark === 1 ? 1 : 0]}` : "",
    `width: ${sharesOf(view, half.tree.total[node], data.tree.total[0])}`];
}

/* The VM and vCPU, or the thread, that it is in. */
function labelsOf(view, { half, node }) {
  if (view.flipped(half) || view.sandwich >= 0) { return ""; }
  const { data } = view, { tree } = half, labels = [];
  for (let up = tree.parent[node]; up > 0; up = tree.parent[up]) {
    const frame = tree.frame[up];
    if (!data.kinds[data.kind[frame]]) { labels.unshift(data.names[data.name[frame]]); }
  }
  return labels.length ? "in " + labels.join(" \u203a ") : "";
}
