/* The data of a dashboard: what dashboard.py and packing.py have packed. */
function columnOf({ kind, bytes, length }, packed, start) {
  if (kind === "double") {
    const raw = new Uint8Array(8 * length);
    for (let plane = 0; plane < 8; plane++) {
      for (let i = 0; i < length; i++) { raw[8 * i + plane] = packed[start + plane * length + i]; }
    }
    return new Float64Array(raw.buffer);
  }
  const small = bytes < 4, found = small ? new Int32Array(length) : new Float64Array(length);
  for (let plane = 0, of = 1; plane < bytes; plane++, of *= 256) {
    const at = start + plane * length;
    for (let i = 0; i < length; i++) { found[i] += of * packed[at + i]; }
  }
  const stepped = kind === "steps";
  for (let i = 0, before = 0; i < length; i++) {
    const one = found[i], half = small ? one >> 1 : Math.floor(one / 2);
    const signed = one === 2 * half ? half : -half - 1;
    found[i] = before = stepped ? before + signed : signed;
  }
  return found;
}

/* A node's parent and the place behind all that is beneath it; they stand depth first. */
function family(depth) {
  const n = depth.length, parent = new Int32Array(n), end = new Int32Array(n).fill(n), path = [];
  for (let i = 0; i < n; i++) {
    while (path.length > depth[i]) { end[path.pop()] = i; }
    parent[i] = path.length ? path[path.length - 1] : -1;
    path.push(i);
  }
  return { parent, end };
}

function sumsOf(packed) {
  const size = new DataView(packed.buffer, packed.byteOffset).getUint32(0, true);
  const data = JSON.parse(new TextDecoder().decode(packed.subarray(4, 4 + size)));
  const column = {};
  let at = 4 + size;
  for (const one of data.columns) {
    column[one.name] = columnOf(one, packed, at);
    at += one.bytes * one.length;
  }
  data.n = column.depth.length;
  Object.assign(data, family(column.depth), { frame: column.frame });
  data.frames = { name: column.name, kind: column.kind, detail: column.detail };
  data.someNode = new Int32Array(column.name.length).fill(-1); // of each frame
  data.frame.forEach((frame, node) => { if (data.someNode[frame] < 0) { data.someNode[frame] = node; } });
  data.node = column.node;
  data.facet = column.facet;
  data.step = column.step;
  data.samples = column.samples;
  data.weight = Float64Array.from(column.weight);
  for (let i = 0; i < data.weight.length; i++) { data.weight[i] += data.each * column.samples[i]; }
  data.cells = data.node.length;
  if (data.heat) { data.heat = heatOf(data, column); }
  for (const facet of data.facets) { facet.of = column[`facet ${facet.key}`]; }
  for (const palette of data.palettes) { palette.colour = column[`shade of ${palette.by}`]; }
  return data;
}

/* The same nodes as the explorer takes them, with these own weights. */
function explorable(data, self, unit) {
  const { frame, frames } = data;
  const view = (array) => new DataView(array.buffer, array.byteOffset, array.byteLength);
  const ofNodes = (Kind, column) => {
    const found = new Kind(frame.length);
    for (let i = 0; i < found.length; i++) { found[i] = column[frame[i]]; }
    return view(found);
  };
  const columns = [["parent", "i4", view(data.parent)], ["self", "f8", view(self)],
    ["name", "i4", ofNodes(Int32Array, frames.name)], ["kind", "u1", ofNodes(Uint8Array, frames.kind)],
    ["detail", "i4", ofNodes(Int32Array, frames.detail)],
    ...data.palettes.map(({ by, of, colour }) =>
      [by, "u1", of === "nodes" ? view(Uint8Array.from(colour)) : ofNodes(Uint8Array, colour)])];
  const header = { title: data.title, subtitle: "", unit, focus: 0, query: "", order: "name", icicle: false,
    lanes: [], names: data.names, kinds: data.kinds, details: data.details, palettes: data.palettes,
    themes: data.themes, columns: columns.map(([name, kind]) => [name, kind]) };
  return unpacked(header, columns.map((column) => column[2]));
}
