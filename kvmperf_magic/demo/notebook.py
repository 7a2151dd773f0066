"""`kvmperf demo`: executes the notebook, writes its HTML page, prints the diff."""

from __future__ import annotations

import base64
import os
import re
import sys
from pathlib import Path
from typing import Any

from kvmperf_magic.demo import stage
from kvmperf_magic.demo.image import guest_elf
from kvmperf_magic.errors import FileError, KvmperfError

NAME = "host-vs-guest"
# what nbconvert's template would load from elsewhere
_FETCHED = (
    *("mathjax_url", "require_js_url", "jquery_url"),
    *("mermaid_js_url", "mermaid_layout_elk_js_url"),
)
_IMAGE = re.compile(
    r'<img alt="[^"]*" (?P<source>src="data:image/svg\+xml;base64,(?P<svg>[A-Za-z0-9+/=\s]*)")'
)
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
    print(_diff(output, bool(live)))
    print(f"\nnotebook: {notebook}\npage:     {page}")
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
    page.write_text(_IMAGE.sub(_described, html), encoding="utf-8")


def _described(image: re.Match[str]) -> str:
    """The tag of an SVG with what that says of itself, in place of nbconvert's excuse."""
    svg = base64.b64decode(image["svg"]).decode("utf-8", "replace")
    said = re.search(r'<svg [^>]*aria-label="([^"]*)"', svg)  # escaped already
    return f'<img alt="{said[1]}" {image["source"]}' if said else image[0]


def _diff(folder: Path, live: bool) -> str:
    """The table of the notebook's diff: of what was recorded, or of the bundled recordings."""
    from kvmperf_magic.comparison import diff
    from kvmperf_magic.recording import open_recording

    if live:
        host = open_recording(folder / "perf.data.host")
        guest = open_recording(folder / "perf.data.guest", guest_elf=guest_elf())
    else:
        host, guest = stage.replay("host"), stage.replay("crowded")
    return repr(diff(host, guest).diff)


def _notebook_libraries() -> tuple[Any, Any]:
    try:
        import nbclient
        import nbformat
    except ImportError as error:
        raise KvmperfError(
            f"the demo needs {error.name}", "pip install 'kvmperf_magic[notebook]'"
        ) from None
    return nbformat, nbclient
