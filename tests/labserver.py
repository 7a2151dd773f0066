"""A real JupyterLab: its server, notebooks opened in it, cells run and saved as people do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
from nbformat.reader import NotJSONError
from playwright.sync_api import TimeoutError

_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@contextmanager
def served(root: Path, own: Path) -> Iterator[str]:
    """The address of a JupyterLab of this environment that serves `root`, its files in `own`."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folders = {f"JUPYTER_{name}_DIR": str(own / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    paths = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, **folders, "HOME": str(own), "PYTHONPATH": paths}
    options = [f"--port={port}", "--no-browser", "--allow-root", "--ServerApp.token="]
    options += ["--ServerApp.password=", f"--ServerApp.root_dir={root}"]
    options += ["--ServerApp.disable_check_xsrf=True"]  # it ends its kernels when it is told to
    command = [sys.executable, "-m", "jupyterlab", *options]
    with (
        (own / "lab.log").open("w") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        ) as server,
    ):
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{address}/api", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.25)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def show(address: str, page: Any, path: Path) -> None:
    """Opens a notebook, which is in a folder of the served one, alone in a workspace of its own."""
    name = path.parent.name
    page.goto(f"{address}/lab/workspaces/{name}-{path.stem}/tree/{name}/{path.name}")
    page.get_by_text("| Idle").wait_for()


def write(path: Path, cells: Sequence[str]) -> None:
    """A notebook of these cells, not yet run."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata.kernelspec = _KERNEL
    nbformat.write(book, path)


def run(address: str, page: Any, path: Path, *cells: str) -> None:
    """Opens a notebook of these cells and runs the first."""
    write(path, cells)
    show(address, page, path)
    start(page, 0)


def start(page: Any, number: int) -> None:
    """Runs a cell of the notebook that is open, by its number, unless it has run already."""
    cell = page.locator(".jp-Cell").nth(number)
    waiting = cell.locator(".jp-InputPrompt", has_text="[ ]:")
    for _ in range(20):  # a key that comes while the front end is busy setting up may be lost
        cell.locator(".cm-content").click()
        cell.locator(".cm-focused").wait_for()
        page.keyboard.press("Control+Enter")
        with suppress(TimeoutError):
            waiting.wait_for(state="detached", timeout=2000)
            return
    raise AssertionError(f"cell {number} of the notebook does not start")


def save(page: Any, path: Path) -> list[Any]:
    """Saves the notebook; the outputs of its first cell."""
    page.keyboard.press("Control+s")
    for _ in range(60):
        with suppress(NotJSONError):  # read while the server is writing it
            outputs = nbformat.read(path, as_version=4).cells[0].get("outputs")
            if outputs:
                return list(outputs)
        page.wait_for_timeout(500)
    raise AssertionError("the notebook is saved without outputs")


def end_kernels(address: str) -> None:
    """Ends what the notebooks that were opened have started."""
    with urllib.request.urlopen(f"{address}/api/sessions", timeout=10) as answer:
        sessions = json.load(answer)
    for session in sessions:
        request = urllib.request.Request(f"{address}/api/sessions/{session['id']}", method="DELETE")
        urllib.request.urlopen(request, timeout=10).close()
