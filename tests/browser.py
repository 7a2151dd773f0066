"""A headless Chromium: what a document looks like, and what its scripts make of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--virtual-time-budget=5000",
)


NAMES = ("chromium", "chromium-browser", "google-chrome")


def program() -> str:
    """The path of the browser (mark the test `chromium`)."""
    return next(path for path in map(shutil.which, NAMES) if path)


@contextmanager
def driven(*options: str) -> Iterator[Any]:
    """The browser as playwright drives it."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox", *options]
        browser = running.chromium.launch(executable_path=program(), args=arguments)
        yield browser
        browser.close()


def until(page: Any, true: str, seconds: float = 30) -> None:
    """Waits until this is true in a page. Playwright's own way is to evaluate a text within the
    page from its second try on, which a page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(true):
        assert time.monotonic() < end, f"not within {seconds} s: {true}"
        page.wait_for_timeout(20)


def _run(folder: Path, *arguments: str) -> str:
    command = [program(), *_OPTIONS, f"--user-data-dir={folder / 'chromium'}", *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    ) as running:
        try:
            return running.communicate(timeout=60)[0]
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)


def dump_dom(document: Path, fragment: str = "", options: Sequence[str] = ()) -> str:
    """The document after its scripts ran, as HTML."""
    return _run(document.parent, *options, "--dump-dom", f"{document.as_uri()}#{fragment}")


def screenshot(document: Path, width: int, height: int, *options: str) -> NDArray[np.uint8]:
    """Its pixels, u8[height, width, 3]."""
    image = document.with_suffix(".png")
    size = f"--window-size={width},{height}"
    _run(document.parent, *options, size, f"--screenshot={image}", document.as_uri())
    return decode_png(image.read_bytes())


def share_of(pixels: NDArray[np.uint8], colour: str) -> float:
    """How much of the picture has exactly this `#rrggbb`."""
    wanted = np.frombuffer(bytes.fromhex(colour[1:]), dtype=np.uint8)
    return float(np.mean(np.all(pixels == wanted, axis=2)))


def decode_png(data: bytes) -> NDArray[np.uint8]:
    """Its pixels, u8[height, width, 3]: what is transparent as it is, alpha left out."""
    with Image.open(BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))
