/* A view that the page makes of the pool it has been sent, as ranking.py does, while the kernel does
   not hear it. `look`: machine, filter, sort and count_filter. Gives the view and its buffers. */
const SEARCHED = ["symbol", "dso", "comm"];

function viewOf(view, pool, trends, strips, look) {
  const columnOf = (name) => pool.values[pool.columns.indexOf(name)];
  const buckets = pool.pid.length ? trends.length / pool.pid.length : 0;
  const here = pool.pid.map((_, i) => i).filter((i) => look.machine === null || pool.pid[i] === look.machine);
  const total = pool.totals.reduce((sum, [pid, all]) =>
    sum + (look.machine === null || pid === look.machine ? all : 0), 0) || 1;
  const rows = merged(pool, here);
  for (const row of rows) { row.samples = Math.round(row.samples); }
  const { filter } = look, found = filter ? expression(filter) : null;
  const texts = SEARCHED.filter((name) => pool.columns.includes(name)).map(columnOf);
  const matching = rows.filter(({ at }) => !found || texts.some((column) => found.test(String(column[at]))));
  const kept = matching.filter(({ samples }) => look.count_filter === null || samples > look.count_filter);
  kept.sort((a, b) => b.period - a.period);
  const shown = kept.slice(0, pool.entries), name = look.sort.replace(/^-/, "");
  const way = (look.sort[0] === "-" ? -1 : 1) * (["overhead", "samples"].includes(name) ? -1 : 1);
  const keyOf = ({ at, period, samples }) =>
    (name === "overhead" ? period : name === "samples" ? samples : columnOf(name)[at]);
  shown.sort((a, b) => {
    const [x, y] = [keyOf(a), keyOf(b)];
    return way * (x < y ? -1 : x > y ? 1 : 0);
  });
  const value = { overhead: ({ period }) => 100 * period / total, samples: ({ samples }) => samples };
  const values = view.columns.map((column) =>
    shown.map(value[column] || (({ at }) => columnOf(column)[at])));
  const { kinds, strip } = stripOf(view, pool, strips, look.machine);
  const known = (bucket) => kinds.some((_, k) => strip[(k + 1) * view.buckets - buckets + bucket] !== NONE);
  const drawn = trendsOf(pool, trends, shown, buckets, known);
  const matched = 100 * matching.reduce((sum, row) => sum + row.period, 0) / total;
  return [{ ...view, ...look, values, peaks: shown.map(() => null), kinds, matched, found: kept.length,
    of: `of the ${pool.pid.length} heaviest` }, [drawn, strip]];
}

/* Rows that differ in their machine only are one where machines are not told apart. */
function merged(pool, here) {
  const rows = new Map(), apart = pool.columns.includes("machine");
  for (const i of here) {
    const key = apart ? i : JSON.stringify(pool.values.map((column) => column[i]));
    const row = rows.get(key) || { at: i, all: [], period: 0, samples: 0 };
    rows.set(key, row);
    row.all.push(i);
    row.period += pool.period[i];
    row.samples += pool.samples[i];
  }
  return [...rows.values()];
}

/* How the weight of each row went, in 250ths of its peak: what the whole of a bucket was, nobody knows
   here, only whether it is `known` at all. */
function trendsOf(pool, trends, shown, buckets, known) {
  const drawn = new Uint8Array(shown.length * buckets);
  shown.forEach(({ all }, row) => {
    const sums = new Float64Array(buckets);
    for (const i of all) {
      for (let k = 0; k < buckets; k++) {
        const level = trends[i * buckets + k];
        sums[k] += level === NONE ? 0 : level * pool.peaks[i];
      }
    }
    const most = Math.max(...sums) || 1;
    for (let k = 0; k < buckets; k++) {
      drawn[row * buckets + k] = known(k) ? Math.round(LEVELS * sums[k] / most) : NONE;
    }
  });
  return drawn;
}

/* The strip of a machine: the kinds that it has. */
function stripOf(view, pool, strips, machine) {
  const tab = Math.max(view.tabs.findIndex(([key]) => key === machine), 0), { buckets } = view;
  const rows = pool.kinds.map((kind, k) => {
    const from = (tab * pool.kinds.length + k) * buckets;
    return [kind, strips.subarray(from, from + buckets)];
  }).filter(([, row]) => row.some((level) => level !== NONE && level > 0));
  const strip = new Uint8Array(rows.length * buckets);
  rows.forEach(([, row], k) => strip.set(row, k * buckets));
  return { kinds: rows.map(([kind]) => kind), strip };
}
