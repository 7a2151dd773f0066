"""The explorer in a notebook that nobody looked at while it ran: what is saved is the picture."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from kvmperf_magic.demo import notebook
from kvmperf_widgets.picture import PLOTLY

CELLS = [
    "%load_ext kvmperf_magic\nfrom kvmperf_magic import demo\nboth = demo.replay('both')",
    "both.flamegraph().explore()",
    "both.flamegraph().reverse().explore()",
]


def test_a_saved_explorer_is_a_picture_and_small(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.ipynb")
    notebook.execute(tmp_path / "x.ipynb", tmp_path / "done.ipynb")
    executed = nbformat.read(tmp_path / "done.ipynb", as_version=4)
    shown = [cell.outputs[-1].data for cell in executed.cells[1:]]
    for data in shown:
        assert set(data) == {PLOTLY, "image/svg+xml", "text/plain"}
        assert data[PLOTLY]["layout"]["meta"]["kvmperf"]
    assert (tmp_path / "done.ipynb").stat().st_size < 800_000
    html, _ = HTMLExporter().from_notebook_node(executed)
    assert html.count('data-mime-type="image/svg+xml"') == 2
    assert '<script type="application/vnd.jupyter.widget-view+json">' not in html
