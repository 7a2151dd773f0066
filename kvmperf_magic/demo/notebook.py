"""`kvmperf demo`: executes the notebook, writes its page and two to filter in, prints the diff."""

from __future__ import annotations

import base64
import os
import re
import sys
from pathlib import Path
from typing import Any

from kvmperf_magic.comparison import diff
from kvmperf_magic.demo import stage
from kvmperf_magic.demo.image import guest_elf
from kvmperf_magic.errors import FileError, KvmperfError
from kvmperf_magic.recording import Recording, open_recording

NAME = "host-vs-guest"
# what nbconvert's template would load from elsewhere
_FETCHED = (
    *("mathjax_url", "require_js_url", "jquery_url"),
    *("mermaid_js_url", "mermaid_layout_elk_js_url"),
)
_IMAGE = re.compile(
    r'<img alt="[^"]*" (?P<source>src="data:image/svg\+xml;base64,(?P<svg>[A-Za-z0-9+/=\s]*)")'
)
# the page has one look: pictures in it are not to follow a reader's dark one
_LIGHT = '<meta name="color-scheme" content="light">'
_TIMEOUT = 300  # seconds a cell may take


def run(output: Path) -> int:
    """Everything into the folder `output`; 0 when it is all there."""
    live = stage.live()
    print(live.sentence)
    output.mkdir(parents=True, exist_ok=True)
    notebook = output / f"{NAME}.ipynb"
    page = output / f"{NAME}.html"
    execute(source(), notebook)
    convert(notebook, page)
    report, changes = output / "report.html", output / "diff.html"
    host, guest, both = _recordings(output, bool(live))
    both.report().to_html(report)
    found = diff(host, guest)
    found.to_html(changes)
    print(repr(found.diff))
    print(f"\nnotebook:  {notebook}\npage:      {page}")
    print(f"dashboard: {report}\nchanges:   {changes}")
    return 0


def source() -> Path:
    """The notebook as it is shipped: in the package, or in a checkout beside it."""
    here = Path(__file__)
    for folder in (here.parent, here.parents[2] / "notebooks"):
        path = folder / f"{NAME}.ipynb"
        if path.exists():
            return path
    raise FileError(f"{NAME}.ipynb", "not shipped with this installation", hint="install it anew")


def execute(path: Path, out: Path) -> None:
    """Run the notebook in the folder of `out` and save it there with its outputs."""
    nbformat, nbclient = _notebook_libraries()
    book = nbformat.read(path, as_version=4)
    # the kernel finds this package even where it is not installed
    paths = [p for p in (*sys.path, os.environ.get("PYTHONPATH", "")) if p]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    client = nbclient.NotebookClient(
        book,
        timeout=_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(out.parent)}},
        record_timing=False,
        store_widget_state=False,  # widgets are nothing without their kernel
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute(env=environment)
    except nbclient.exceptions.CellExecutionError as error:
        nbformat.write(book, out)
        raise KvmperfError(f"a cell of the notebook failed: {error.evalue}", f"see {out}") from None
    nbformat.write(book, out)


def convert(notebook: Path, page: Path) -> None:
    """The notebook as one HTML file that loads nothing from anywhere."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(embed_images=True, **dict.fromkeys(_FETCHED, ""))
    html, _ = exporter.from_filename(str(notebook))
    html = html.replace("<head>", f"<head>{_LIGHT}", 1)
    page.write_text(_IMAGE.sub(_described, html), encoding="utf-8")


def _described(image: re.Match[str]) -> str:
    """The tag of an SVG with what that says of itself, in place of nbconvert's excuse."""
    svg = base64.b64decode(image["svg"]).decode("utf-8", "replace")
    said = re.search(r'<svg [^>]*aria-label="([^"]*)"', svg)  # escaped already
    return f'<img alt="{said[1]}" {image["source"]}' if said else image[0]


def _recordings(folder: Path, live: bool) -> tuple[Recording, Recording, Recording]:
    """Host, guest, and both in one: what the notebook recorded, or the bundled recordings."""
    if not live:
        return stage.replay("host"), stage.replay("crowded"), stage.replay("both")
    elf = guest_elf()
    host, guest, both = (folder / f"perf.data.{name}" for name in ("host", "guest", "kvm"))
    return (
        open_recording(host),
        open_recording(guest, guest_elf=elf),
        open_recording(both, guest_elf=elf),
    )


def _notebook_libraries() -> tuple[Any, Any]:
    try:
        import nbclient
        import nbformat
    except ImportError as error:
        raise KvmperfError(
            f"the demo needs {error.name}", "pip install 'kvmperf_magic[notebook]'"
        ) from None
    return nbformat, nbclient
