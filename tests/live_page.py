"""A live picture in a page of its own, with a stand-in for the kernel's side of its widget.

What the page's side sets stands in `window.model.state`, what it saves in `window.model.saved`,
what it says in `window.model.asked`. Where the test exposes a function `kernel`, that is the other
side: it is given each message (and every 50 ms none) and gives the messages that are to come back.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from kvmperf_widgets.live import LiveWidget

Packed = tuple[dict[str, Any], list[bytes]]

_PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>harmless</title>
<style>CSS body{margin:8px}</style><div id="here"></div>
<script type="module">
const text = (packed) => Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
const [esm, answers, state] = JSON.parse(new TextDecoder().decode(text("CONTENT")));
const viewed = (column) => new DataView(text(column).buffer);
const source = URL.createObjectURL(new Blob([esm], {type: "text/javascript"}));
const widget = (await import(source)).default;
const takers = [];
const model = {
  state, saved: [],
  get: (name) => model.state[name],
  set: (name, value) => { model.state[name] = value; model.emit(`change:${name}`); },
  save_changes: () => model.saved.push(JSON.parse(JSON.stringify(model.state))),
  on: (event, taker) => takers.push([event, taker]),
  off: (event, taker) => takers.splice(takers.findIndex(([e, t]) => e === event && t === taker), 1),
  emit: (event, ...told) => takers.filter(([e]) => e === event).forEach(([, t]) => t(...told)),
  asked: [],
  send: (asked) => {
    model.asked.push(asked);
    if (window.kernel) { tell(asked); }
    if (!answers[asked.type] || window.kernel) { return; }
    const [header, columns] = answers[asked.type];
    setTimeout(() => model.emit("msg:custom", {...header, ...asked}, columns.map(viewed)), 0);
  },
};
async function tell(content) {
  for (const [told, columns] of await window.kernel(content)) {
    model.emit("msg:custom", told, columns.map(viewed));
  }
}
if (window.kernel) { setInterval(() => tell(null), 50); }
window.model = model;
window.close_it = await widget.render({model, el: document.getElementById("here")});
document.title += " and ready";
</script>"""


def write_live(
    widget: type[LiveWidget],
    packed: Packed,
    path: Path,
    answers: dict[str, Packed] | None = None,
    **state: Any,
) -> Path:
    """The page of a widget that has these data and this state; `answers` to other messages."""
    known = {
        kind: [header, [base64.b64encode(column).decode() for column in columns]]
        for kind, (header, columns) in {widget.asked_for: packed, **(answers or {})}.items()
    }
    content = [str(widget._esm), known, {"picture": "", **state}]
    text = base64.b64encode(json.dumps(content).encode()).decode()
    path.write_text(_PAGE.replace("CSS", str(getattr(widget, "_css", ""))).replace("CONTENT", text))
    return path
