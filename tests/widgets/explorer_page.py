"""The explorer in a page of its own, with a stand-in for the kernel's side of the widget."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from kvmperf_widgets import FlameGraph
from kvmperf_widgets.explorer import ExplorerWidget, packed

_PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>harmless</title>
<style>CSS body{margin:8px}</style><div id="here"></div>
<script type="module">
const text = (packed) => Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
const [esm, header, columns, theme] = JSON.parse(new TextDecoder().decode(text("CONTENT")));
const buffers = columns.map((column) => new DataView(text(column).buffer));
const source = URL.createObjectURL(new Blob([esm], {type: "text/javascript"}));
const widget = (await import(source)).default;
const takers = [];
const model = {
  get: (name) => ({theme, picture: ""})[name],
  on: (_, taker) => takers.push(taker),
  off: () => takers.pop(),
  send: () => setTimeout(() => takers.forEach((f) => f({type: "tree", ...header}, buffers)), 0),
};
await widget.render({model, el: document.getElementById("here")});
document.title += " and ready";
</script>"""


def write_page(graph: FlameGraph, path: Path) -> Path:
    header, columns = packed(graph)
    packed_columns = [base64.b64encode(column).decode() for column in columns]
    content: list[Any] = [str(ExplorerWidget._esm), header, packed_columns, graph.theme]
    text = base64.b64encode(json.dumps(content).encode()).decode()
    path.write_text(_PAGE.replace("CSS", str(ExplorerWidget._css)).replace("CONTENT", text))
    return path
