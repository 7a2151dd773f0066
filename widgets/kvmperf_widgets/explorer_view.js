/* What of a tree is shown, and where: neither a page nor drawing. A half is a placed tree and the
   side of its root on which its callees stand: -1 above, 1 beneath; a sandwich has two of them.
   A place is a half and a node of it. */
const ROW = 18, MOST_HEIGHT = 640;

class View {
  constructor(data) {
    this.data = data;
    this.plain();
    this.order = data.order;
    this.x0 = this.top = 0;
    this.x1 = 1;
    this.width = 200;
    this.halves = []; // until it is built
  }

  /* As the data are. */
  plain() {
    const { reversed, collapsed } = { reversed: false, collapsed: false, ...this.data.shape };
    const icicle = Boolean(this.data.icicle) && !reversed; // a reversed one stands so anyway
    Object.assign(this, { icicle, reversed, collapsed, sandwich: -1 });
  }

  /* Whether the tree comes in the shape that it is to be seen in. */
  get grown() { return Boolean(this.data.changes); }

  /* Out of the tree what is to be seen; all of it, or with `keep` what was seen before. */
  build(keep = false) {
    const { data } = this, was = keep && this.kept();
    const tree = this.collapsed && !this.grown ? collapsed(data.tree, data.ids()) : data.tree;
    const half = (one, sign) => ({ tree: placed(one, this.order, data.rank), sign });
    if (data.callers) {
      this.halves = [half(data.tree, 1), half(data.callers, -1)];
    } else if (this.sandwich >= 0) {
      this.halves = [half(callees(tree, data.ids(), this.sandwich), 1),
        half(callers(tree, data.ids(), this.sandwich), -1)];
    } else {
      const downwards = this.icicle || this.reversed;
      this.halves = [half(this.reversed && !this.grown ? reversed(tree, data.ids()) : tree, downwards ? 1 : -1)];
    }
    const reach = (sign) => Math.max(1, ...this.halves.filter((one) => one.sign === sign)
      .map((one) => one.tree.levels.length));
    this.base = reach(-1) - 1; // the row of the root
    this.rows = this.base + reach(1);
    this.resize(this.width);
    this.zoomed = this.selected = this.root();
    this.hover = null;
    this.show(0, 1);
    if (was) { this.again(was); } else { this.bringRoot(); }
  }

  root() { return { half: this.halves[0], node: 0 }; }

  kept() {
    const { left, span } = this.span(this.zoomed);
    return { path: this.path(this.zoomed), lift: this.base * ROW - this.top,
      from: (this.x0 - left) / span, to: (this.x1 - left) / span };
  }

  again(was) {
    this.zoomed = this.selected = { half: this.halves[0], node: this.found(was.path) };
    const { left, span } = this.span(this.zoomed);
    if (this.zoomed.node) {
      this.show(left + was.from * span, left + was.to * span);
    } else if (!was.path.length) {
      this.show(was.from, was.to);
    }
    this.scroll(this.base * ROW - was.lift - this.top);
  }

  /* The frames from the root to a place. */
  path({ half, node }) {
    const path = [];
    for (let at = node; at > 0; at = half.tree.parent[at]) { path.push(half.tree.frame[at]); }
    return path.reverse();
  }

  /* Where in the first half this path leads, as far as there is weight on it. */
  found(path) {
    if (!path.length) { return 0; }
    const { tree } = this.halves[0], same = this.data.ids().of;
    let node = 0;
    for (let depth = 1; depth <= path.length && depth < tree.levels.length; depth++) {
      const frame = path[depth - 1];
      const beneath = Array.from(tree.levels[depth])
        .filter((one) => tree.parent[one] === node && same[tree.frame[one]] === same[frame]);
      if (!beneath.length) { break; }
      node = beneath.find((one) => tree.frame[one] === frame) ?? beneath[0];
    }
    return node;
  }

  span({ half, node }) {
    return { left: half.tree.x[node], span: half.tree.width[node] || 1 };
  }

  resize(width) {
    this.width = width;
    this.height = Math.max(Math.min(this.rows * ROW, MOST_HEIGHT), 4 * ROW);
  }

  show(x0, x1) {
    const span = Math.min(Math.max(x1 - x0, 1e-9), 1);
    this.x0 = Math.min(Math.max(x0, 0), 1 - span);
    this.x1 = this.x0 + span;
  }

  /* Zooms by this factor around a share (0..1) of what is shown. */
  scale(factor, at = 0.5) {
    const x = this.x0 + at * (this.x1 - this.x0);
    this.show(x - (x - this.x0) * factor, x + (this.x1 - x) * factor);
  }

  scroll(by) {
    this.top = Math.max(0, Math.min(this.top + by, this.rows * ROW - this.height));
  }

  bringRoot() {
    const upwards = this.halves[0].sign < 0;
    this.top = upwards ? this.rows * ROW : (this.base + 1) * ROW - this.height / 2;
    this.scroll(0);
  }

  rowTop(half, depth) { return (this.base + half.sign * depth) * ROW - this.top; }

  /* The edges of a place in pixels, also where they are not in sight. */
  edges({ half, node }) {
    const scale = this.width / (this.x1 - this.x0), left = (half.tree.x[node] - this.x0) * scale;
    return { left, right: left + half.tree.width[node] * scale,
      top: this.rowTop(half, half.tree.depth[node]) };
  }

  at(x, y) {
    const row = Math.floor((y + this.top) / ROW) - this.base;
    const half = this.halves.find((one) => one.sign === Math.sign(row)) || (row === 0 && this.halves[0]);
    const level = half && half.tree.levels[Math.abs(row)];
    if (!level) { return null; }
    const share = this.x0 + x / this.width * (this.x1 - this.x0);
    const node = level[firstBeyond(half.tree, level, share)];
    return node !== undefined && half.tree.x[node] <= share ? { half, node } : null;
  }

  bringIn(place) {
    const top = this.rowTop(place.half, place.half.tree.depth[place.node]);
    if (top < 0) { this.scroll(top - 3 * ROW); }
    if (top > this.height - ROW) { this.scroll(top - this.height + 4 * ROW); }
  }

  select(place) {
    const { left, span } = this.span(place), middle = left + span / 2;
    this.selected = place;
    this.bringIn(place);
    if (middle < this.x0 || middle > this.x1) {
      const half = (this.x1 - this.x0) / 2;
      this.show(middle - half, middle + half);
    }
  }

  /* The neighbour of what is selected in the direction of an arrow key, or null. */
  neighbour(key) {
    const { half, node } = this.selected, { tree } = half, level = tree.levels[tree.depth[node]];
    const sideways = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (sideways) {
      const next = level[level.indexOf(node) + sideways];
      return next === undefined ? null : { half, node: next };
    }
    const down = key === "ArrowDown" ? 1 : -1;
    if (node === 0) { return this.widest(this.halves.find((one) => one.sign === down), 0); }
    return down === half.sign ? this.widest(half, node) : { half, node: tree.parent[node] };
  }

  /* The widest of what stands on a node. */
  widest(half, node) {
    if (!half) { return null; }
    const { tree } = half;
    let best = -1;
    for (const one of tree.levels[tree.depth[node] + 1] || []) {
      if (tree.parent[one] === node && (best < 0 || tree.total[one] > tree.total[best])) { best = one; }
    }
    return best < 0 ? null : { half, node: best };
  }

  frame({ half, node }) { return half.tree.frame[node]; }

  name(place) { return this.data.names[this.data.name[this.frame(place)]]; }

  /* Whether the weight of a half's frames is that of their callers, not of what ended in them. */
  flipped(half) { return this.reversed || (this.sandwich >= 0 && half.sign < 0); }

  shown() { return this.halves.reduce((sum, half) => sum + half.tree.shown, 0); }
}
