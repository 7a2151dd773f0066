/* What is left of the samples under a filter, and the rows of the table. A filter is an object of
   modes (names), comm, machine, vcpu (numbers of names), event (a number), symbol (a regular
   expression) and time ([first, last] step); what it does not have is not filtered. */
const IN_MODE = 1, IN_SYMBOL = 2, IN_TIME = 4, OF_FACETS = 8, MOST_PAIRS = 3000000;

function facetOf(data, key) { return data.facets.find((facet) => facet.key === key); }

/* Bits of what each frame and each facet row fails; -1: another event. */
function failures(data, filter) {
  const { frames } = data, wanted = filter.modes && new Set(filter.modes);
  const byName = new Uint8Array(data.names.length);
  if (filter.symbol) {
    const test = expression(filter.symbol);
    data.names.forEach((name, i) => { byName[i] = test.test(name) ? 0 : IN_SYMBOL; });
  }
  const frame = Int32Array.from(frames.name, (name, i) =>
    byName[name] | (wanted && !wanted.has(data.kinds[frames.kind[i]]) ? IN_MODE : 0));
  const event = facetOf(data, "event").of, chosen = filter.event || 0;
  const facet = Int32Array.from(event, (one) => (one === chosen ? 0 : -1));
  data.facets.forEach(({ key, of }, place) => {
    const numbers = key !== "event" && filter[key] && new Set(filter[key]);
    if (!numbers) { return; }
    of.forEach((name, i) => { if (!numbers.has(name) && facet[i] >= 0) { facet[i] |= OF_FACETS << place; } });
  });
  return { frame, facet };
}

/* One walk over the cells. `self`: weight of the nodes; `passed`: the cells that are left; of the
   event's samples `whole`. What a control would leave if it alone were not set: `strip` [mode][step],
   `modes` [kind], and of each facet [name]. */
function filtered(data, filter) {
  const fails = failures(data, filter), [first, last] = filter.time || [0, data.steps - 1];
  const self = new Float64Array(data.n), passed = new Int32Array(data.cells);
  const modes = new Float64Array(data.kinds.length), strip = data.kinds.map(() => new Float64Array(data.steps));
  const rows = data.facets[0].of.length, by = data.facets.map(() => new Float64Array(rows));
  const whole = { weight: 0, samples: 0 }, left = { weight: 0, samples: 0 };
  let count = 0;
  for (let i = 0; i < data.cells; i++) {
    const ofFacet = fails.facet[data.facet[i]];
    if (ofFacet < 0) { continue; }
    const frame = data.frame[data.node[i]], weight = data.weight[i], step = data.step[i];
    const bits = ofFacet | fails.frame[frame] | (step < first || step > last ? IN_TIME : 0);
    whole.weight += weight;
    whole.samples += data.samples[i];
    if (bits === 0) {
      self[data.node[i]] += weight;
      left.weight += weight;
      left.samples += data.samples[i];
      passed[count++] = i;
    } else if (bits & (bits - 1)) { continue; }
    const kind = data.frames.kind[frame];
    if (bits === 0 || bits === IN_MODE) { modes[kind] += weight; }
    if (bits === 0 || bits === IN_TIME) { strip[kind][step] += weight; }
    for (let place = 0; place < by.length; place++) {
      if (bits === 0 || bits === OF_FACETS << place) { by[place][data.facet[i]] += weight; }
    }
  }
  const facets = data.facets.map(({ names, of }, place) => {
    const sums = new Float64Array(names.length);
    of.forEach((name, i) => { sums[name] += by[place][i]; });
    return sums;
  });
  return { self, passed: passed.subarray(0, count), whole, left, modes, strip, facets };
}

/* Equal for equal columns: a number for each row. */
function numbered(columns, length) {
  const known = new Map(), number = new Int32Array(length);
  for (let i = 0; i < length; i++) {
    let key = 0;
    for (const column of columns) { key = key * 1048576 + column[i]; }
    if (columns.length > 2) { key = columns.map((column) => column[i]).join(); }
    let found = known.get(key);
    if (found === undefined) { found = known.size; known.set(key, found); }
    number[i] = found;
  }
  return { number, count: known.size };
}

/* The table by these keys. A pair is a node with what samples in or beneath it have of the keys of
   samples: `parent` and `row` have one each (-1: the pair makes no row), `outer` those beneath no
   other of their row. `pairOf` has the pair of each cell, `frame` and `facet` one of each row, `same`
   a number of each frame: equal where the table does not tell them apart. */
function grouping(data, by) {
  const { frames } = data, isLabel = (frame) => data.kinds[frames.kind[frame]] === "";
  const ofFrame = { symbol: frames.name, dso: frames.detail, mode: frames.kind };
  const frameRow = numbered(by.filter((key) => ofFrame[key]).map((key) => ofFrame[key]), frames.name.length);
  const columns = by.map((key) => facetOf(data, key)).filter(Boolean).map((facet) => facet.of);
  const facetRow = numbered(columns, data.facets[0].of.length);
  const made = facetRow.count > 1 ? pairs(data, facetRow.number) : {
    node: Int32Array.from(data.frame, (_, i) => i), kind: new Int32Array(data.n),
    parent: data.parent, pairOf: data.node };
  if (!made) { return null; }
  const someFacet = new Int32Array(facetRow.count), known = new Map(), frame = [], facet = [];
  facetRow.number.forEach((number, i) => { someFacet[number] = i; });
  const count = made.node.length, row = new Int32Array(count).fill(-1), outer = new Uint8Array(count);
  const until = []; // where what is beneath the row's last outermost node ends
  for (let pair = 0; pair < count; pair++) {
    const node = made.node[pair], own = data.frame[node];
    if (isLabel(own)) { continue; }
    const key = frameRow.number[own] * facetRow.count + made.kind[pair];
    let found = known.get(key);
    if (found === undefined) {
      found = known.size;
      known.set(key, found);
      frame.push(own);
      facet.push(someFacet[made.kind[pair]]);
      until.push(0);
    }
    row[pair] = found;
    if (node >= until[found]) { outer[pair] = 1; until[found] = data.end[node]; }
  }
  return { ...made, row, outer, count: known.size, frame, facet, same: frameRow.number };
}

/* Nodes in pairs with each of the numbers that cells in or beneath them have; null: too many. */
function pairs(data, number) {
  const only = new Int32Array(data.n).fill(-1), several = new Map(); // most have one; -2: several
  const add = (node, one) => {
    if (only[node] === -1) { only[node] = one; } else if (only[node] !== one) {
      if (only[node] >= 0) {
        several.set(node, new Map([[only[node], 0]]));
        only[node] = -2;
      }
      const there = several.get(node);
      if (!there.has(one)) { there.set(one, there.size); }
    }
  };
  const of = (node) => (only[node] === -2 ? several.get(node).keys() : only[node] < 0 ? [] : [only[node]]);
  for (let i = 0; i < data.cells; i++) { add(data.node[i], number[data.facet[i]]); }
  for (let node = data.n - 1; node > 0; node--) {
    for (const one of of(node)) { add(data.parent[node], one); }
  }
  let count = data.n - several.size;
  several.forEach((there) => { count += there.size; });
  if (count > MOST_PAIRS) { return null; }
  const node = new Int32Array(count), kind = new Int32Array(count), parent = new Int32Array(count);
  const first = new Int32Array(data.n);
  const place = (at, one) => first[at] + (only[at] === -2 ? several.get(at).get(one) : 0);
  let pair = 0;
  for (let at = 0; at < data.n; at++) {
    first[at] = pair;
    for (const one of of(at)) {
      node[pair] = at;
      kind[pair] = one;
      parent[pair++] = at > 0 ? place(data.parent[at], one) : -1;
    }
  }
  const pairOf = new Int32Array(data.cells);
  for (let i = 0; i < data.cells; i++) { pairOf[i] = place(data.node[i], number[data.facet[i]]); }
  return { node: node.subarray(0, pair), kind, parent, pairOf };
}

/* Of every row its own weight, that with all it called, and the samples that ended in it. */
function rowSums(data, group, passed) {
  const total = new Float64Array(group.node.length);
  const self = new Float64Array(group.count), children = new Float64Array(group.count);
  const samples = new Float64Array(group.count);
  for (const cell of passed) {
    const pair = group.pairOf[cell], row = group.row[pair];
    total[pair] += data.weight[cell];
    if (row >= 0) {
      self[row] += data.weight[cell];
      samples[row] += data.samples[cell];
    }
  }
  for (let pair = total.length - 1; pair >= 0; pair--) {
    if (group.outer[pair]) { children[group.row[pair]] += total[pair]; }
    if (group.parent[pair] >= 0) { total[group.parent[pair]] += total[pair]; }
  }
  return { self, children, samples };
}
