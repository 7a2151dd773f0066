/* Draws a View on a canvas. */
const CHARACTER = 6.75, MATCH = "#cc79a7", DASHES = { new: [], vanished: [4, 3] };

function inkOn(colour) {
  const part = (at) => {
    const c = parseInt(colour.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  const light = 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
  return (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) ? "#000000" : "#ffffff";
}

class Painter {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.hits = null; // of every name 1 where a search found it
  }

  /* The colours of a palette of the data, in light or dark (0, 1). */
  paint(data, number, dark) {
    const fills = data.palettes[number].shades.map((shade) => shade[dark]);
    this.colours = { fills, inks: fills.map(inkOn), of: data.colours[number], theme: data.themes[dark] };
  }

  fit(view) { fitted(this.canvas, this.context, view.width, view.height); }

  draw(view) {
    const { context } = this;
    this.view = view;
    context.globalAlpha = 1;
    context.fillStyle = this.colours.theme.background;
    context.fillRect(0, 0, view.width, view.height);
    context.font = "11px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace";
    context.textBaseline = "middle";
    view.halves.forEach((half, number) => this.half(half, number));
    this.outline(view.selected, 2);
    this.outline(view.hover, 1);
  }

  half(half, first) { // the root is drawn once
    const { view } = this, { tree } = half, scale = view.width / (view.x1 - view.x0);
    for (let depth = first; depth < tree.levels.length; depth++) {
      const top = view.rowTop(half, depth), level = tree.levels[depth];
      if (top < -ROW || top > view.height) { continue; }
      for (let k = firstBeyond(tree, level, view.x0); k < level.length; k++) {
        const node = level[k], left = (tree.x[node] - view.x0) * scale;
        if (left > view.width) { break; }
        const right = left + tree.width[node] * scale;
        this.frame(tree.frame[node], Math.max(left, 0), Math.min(right, view.width), top);
        if (right - left < 0.4) { // what is narrower shares a pixel
          k = firstBeyond(tree, level, view.x0 + (left + 0.4) / scale, k + 1) - 1;
        }
      }
    }
  }

  frame(frame, left, right, top) {
    const { context, colours } = this, { data } = this.view;
    const shade = colours.of[frame], hit = this.hits !== null && this.hits[data.name[frame]] === 1;
    const room = right - left, pale = this.hits !== null && !hit;
    context.globalAlpha = pale ? 0.3 : 1;
    context.fillStyle = hit ? MATCH : colours.fills[shade];
    context.fillRect(left, top, Math.max(room - (room > 3 ? 0.7 : 0), 0.4), ROW - 1);
    context.globalAlpha = 1;
    if (data.marks && data.marks[frame] && room >= 5) {
      context.strokeStyle = colours.theme.ink;
      context.lineWidth = 1.2;
      context.setLineDash(DASHES[["", "new", "vanished"][data.marks[frame]]]);
      context.strokeRect(left + 0.6, top + 0.6, room - 2, ROW - 2.2);
      context.setLineDash([]);
    }
    if (room < 30) { return; }
    const fits = Math.floor((room - 7) / CHARACTER), text = data.names[data.name[frame]];
    context.fillStyle = hit ? "#000000" : pale ? colours.theme.ink : colours.inks[shade];
    context.fillText(text.length <= fits ? text : text.slice(0, fits - 1) + "\u2026", left + 3.5, top + ROW / 2);
  }

  outline(place, line) {
    const { context, view } = this;
    if (!place) { return; }
    const { left, right, top } = view.edges(place);
    if (right < 0 || left > view.width) { return; }
    const [from, to] = [Math.max(left, 0), Math.min(right, view.width)];
    context.strokeStyle = this.colours.theme.ink;
    context.lineWidth = line;
    context.strokeRect(from + 0.5, top + 0.5, Math.max(to - from - 1.5, 1), ROW - 2);
  }
}
