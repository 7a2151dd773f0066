/* Trees of frames as flat arrays: parents stand before children, node 0 is the root.
   `frame` leads to the names of the whole tree; see regrow.py for what each function makes. */
const MOST_NODES = 150000, MOST_STEPS = 1500000;

function finished(parent, frame, self) {
  const n = parent.length;
  const total = Float64Array.from(self), depth = new Int32Array(n);
  let rows = 1;
  for (let i = 1; i < n; i++) {
    depth[i] = depth[parent[i]] + 1;
    if (depth[i] >= rows) { rows = depth[i] + 1; }
  }
  for (let i = n - 1; i > 0; i--) { total[parent[i]] += total[i]; }
  return { n, parent, frame, self, total, depth, rows };
}

/* Equal for frames that are the same: one number for name, kind and detail. */
function identities(names, kinds, details) {
  const known = new Map(), found = new Int32Array(names.length);
  for (let i = 0; i < names.length; i++) {
    const key = (names[i] * 16 + kinds[i]) * 131072 + details[i];
    let id = known.get(key);
    if (id === undefined) { id = known.size; known.set(key, id); }
    found[i] = id;
  }
  return { of: found, count: known.size };
}

class Growing {
  constructor(ids, root) {
    this.ids = ids;
    this.parent = [-1];
    this.frame = [root];
    this.self = [0];
    this.known = new Map();
  }

  /* The child of node `above` that is the same as this frame; -1 where there is no room. */
  child(above, frame, most) {
    const key = above * this.ids.count + this.ids.of[frame];
    let node = this.known.get(key);
    if (node === undefined) {
      if (this.parent.length >= most) { return -1; }
      node = this.parent.length;
      this.known.set(key, node);
      this.parent.push(above);
      this.frame.push(frame);
      this.self.push(0);
    }
    return node;
  }

  tree() {
    return finished(
      Int32Array.from(this.parent), Int32Array.from(this.frame), Float64Array.from(this.self));
  }
}

/* From each start up to (without) the root; the heaviest first, for they are to be seen. */
function climbed(tree, ids, root, starts, weight) {
  const growing = new Growing(ids, root);
  let steps = 0;
  starts.sort((a, b) => weight(b) - weight(a));
  for (const start of starts) {
    let at = 0;
    const most = steps < MOST_STEPS ? MOST_NODES : 0;
    for (let node = start.first; node > 0; node = tree.parent[node]) {
      const next = growing.child(at, tree.frame[node], most);
      if (next < 0) { break; }
      at = next;
      steps++;
    }
    growing.self[at] += weight(start);
  }
  return growing.tree();
}

function reversed(tree, ids) {
  const starts = [];
  for (let i = 0; i < tree.n; i++) {
    if (tree.self[i] > 0) { starts.push({ first: i, node: i }); }
  }
  return climbed(tree, ids, tree.frame[0], starts, (start) => tree.self[start.node]);
}

/* The nodes that are the same as this frame and stand beneath no other such. */
function places(tree, ids, frame) {
  const wanted = ids.of[frame], inside = new Uint8Array(tree.n), found = [];
  for (let i = 0; i < tree.n; i++) {
    const covered = i > 0 && inside[tree.parent[i]] === 1;
    const same = ids.of[tree.frame[i]] === wanted;
    inside[i] = covered || same ? 1 : 0;
    if (same && !covered) { found.push(i); }
  }
  return found;
}

function callers(tree, ids, frame) {
  const starts = places(tree, ids, frame).map((node) => ({
    first: node > 0 ? tree.parent[node] : 0, node
  }));
  return climbed(tree, ids, frame, starts, (start) => tree.total[start.node]);
}

function callees(tree, ids, frame) {
  const growing = new Growing(ids, frame), place = new Int32Array(tree.n).fill(-1);
  places(tree, ids, frame).forEach((node) => { place[node] = 0; });
  for (let i = 0; i < tree.n; i++) {
    if (place[i] < 0 && i > 0 && place[tree.parent[i]] >= 0) {
      place[i] = growing.child(place[tree.parent[i]], tree.frame[i], Infinity);
    }
    if (place[i] >= 0) { growing.self[place[i]] += tree.self[i]; }
  }
  return growing.tree();
}

function collapsed(tree, ids) {
  const growing = new Growing(ids, tree.frame[0]), place = new Int32Array(tree.n);
  growing.self[0] += tree.self[0];
  for (let i = 1; i < tree.n; i++) {
    const above = tree.parent[i];
    const again = ids.of[tree.frame[i]] === ids.of[tree.frame[above]];
    place[i] = again ? place[above] : growing.child(place[above], tree.frame[i], Infinity);
    growing.self[place[i]] += tree.self[i];
  }
  return growing.tree();
}

/* Where the nodes stand: x and width as shares of the root; levels sorted from left to right. */
function placed(tree, order, rank) {
  const { n, parent, total } = tree, whole = total[0] || 1;
  const first = new Int32Array(n + 1), place = new Int32Array(n), callees = new Int32Array(n);
  for (let i = 1; i < n; i++) { first[parent[i] + 1]++; }
  for (let i = 0; i < n; i++) { first[i + 1] += first[i]; place[i] = first[i]; }
  for (const i of siblings(tree, order, rank)) {
    if (i > 0) { callees[place[parent[i]]++] = i; }
  }
  const x = tree.x = new Float64Array(n), width = tree.width = total.map((value) => value / whole);
  const line = new Int32Array(n); // all levels, one after the other
  tree.levels = [];
  for (let from = 0, to = 1; from < to;) {
    tree.levels.push(line.subarray(from, to));
    let next = to;
    for (let k = from; k < to; k++) {
      const i = line[k];
      let left = x[i];
      for (let c = first[i]; c < first[i + 1]; c++) {
        const callee = callees[c];
        x[callee] = left;
        left += width[callee];
        if (total[callee] > 0) { line[next++] = callee; }
      }
    }
    from = to;
    to = next;
  }
  tree.shown = total[0] > 0 ? tree.levels.reduce((sum, level) => sum + level.length, 0) : 0;
  return tree;
}

const byName = new WeakMap(); // of the frames of a tree: weighing it anew changes no name

/* All nodes in an order that has siblings in the one wanted. */
function siblings(tree, order, rank) {
  const { n, frame, total } = tree;
  if (order === "time") { return Uint32Array.from(frame.keys()); } // the tree has it
  if (order === "heavy") {
    const sorted = Float64Array.from(total).sort();
    return sortedBy(n, (i) => n - below(sorted, total[i]));
  }
  if (!byName.has(frame)) { byName.set(frame, sortedBy(n, (i) => rank[frame[i]])); }
  return byName.get(frame);
}

/* The numbers below n, by a key of whole numbers, then by themselves. */
function sortedBy(n, key) {
  const keys = new Float64Array(n), room = 2 ** 21; // sorting plain numbers is the fastest
  for (let i = 0; i < n; i++) { keys[i] = key(i) * room + i; }
  keys.sort();
  return Uint32Array.from(keys, (value) => value % room);
}

/* How many of these sorted numbers are below a value. */
function below(sorted, value) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) { low = middle + 1; } else { high = middle; }
  }
  return low;
}

/* The first of a level, from place `low` on, whose right edge is beyond x. */
function firstBeyond(tree, level, x, low = 0) {
  let high = level.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tree.x[level[middle]] + tree.width[level[middle]] <= x) { low = middle + 1; } else { high = middle; }
  }
  return low;
}

/* Percent of the weight of `root` that is in hits or beneath them, each counted once. */
function matchedShare(tree, root, isHit) {
  const state = new Uint8Array(tree.n); // 1: beneath the root, 2: covered by a hit
  let sum = 0;
  state[root] = 1;
  for (let i = root; i < tree.n; i++) {
    if (i !== root) { state[i] = i ? state[tree.parent[i]] : 0; }
    if (state[i] === 1 && isHit(tree.frame[i])) { sum += tree.total[i]; state[i] = 2; }
  }
  return tree.total[root] ? 100 * sum / tree.total[root] : 0;
}
