"""A headless Chromium: what a document looks like, and what its scripts make of it."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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
    """8-bit RGB or RGBA without interlacing, alpha left out (https://www.w3.org/TR/png-3/)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, packed, width, height, channels = 8, b"", 0, 0, 0
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack_from(">IIBB", body)
            assert depth == 8
            channels = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            packed += body
        position += length + 12
    lines = np.frombuffer(zlib.decompress(packed), dtype=np.uint8)
    lines = lines.reshape(height, 1 + width * channels)
    out = np.zeros((height, width, channels), dtype=np.uint8)
    above = np.zeros((width, channels), dtype=np.int64)
    for y in range(height):
        raw = lines[y, 1:].reshape(width, channels).astype(np.int64)
        above = _unfilter(int(lines[y, 0]), raw, above)
        out[y] = above
    return out[:, :, :3]


def _unfilter(kind: int, raw: NDArray[np.int64], above: NDArray[np.int64]) -> NDArray[np.int64]:
    if kind == 0:
        return raw
    if kind == 1:
        return np.cumsum(raw, axis=0) & 255
    if kind == 2:
        return (raw + above) & 255
    rows, ups = raw.tolist(), above.tolist()
    left, corner = [0] * len(rows[0]), [0] * len(rows[0])
    done = []
    for row, up in zip(rows, ups, strict=True):
        if kind == 3:
            here = [(r + ((a + b) >> 1)) & 255 for r, a, b in zip(row, left, up, strict=True)]
        else:
            here = [
                (r + _paeth(a, b, c)) & 255
                for r, a, b, c in zip(row, left, up, corner, strict=True)
            ]
        done.append(here)
        left, corner = here, up
    return np.array(done, dtype=np.int64)


def _paeth(a: int, b: int, c: int) -> int:
    p = a + b - c
    distances = (abs(p - a), abs(p - b), abs(p - c))
    return (a, b, c)[distances.index(min(distances))]
