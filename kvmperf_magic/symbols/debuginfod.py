"""Files from debuginfod servers, by build-id: only where somebody asked for it.

The protocol is debuginfod(8)'s: URL/buildid/ID/debuginfo and .../executable. What came is kept
where debuginfod's own clients keep it, and found there by them, too.
"""

from __future__ import annotations

import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

from kvmperf_magic.errors import SymbolError
from kvmperf_magic.symbols import buildid

Kind = Literal["debuginfo", "executable"]

_TIMEOUT = 10.0  # seconds without an answer; DEBUGINFOD_TIMEOUT says otherwise
_MOST = 4 << 30  # bytes of a file: debug data of browsers and kernels is below
_PIECE = 1 << 20
_HEX = re.compile("[0-9a-f]{8,64}")


class Debuginfod:
    """Asks servers one after the other; one that cannot be reached is not asked again."""

    def __init__(self, urls: Sequence[str], timeout: float | None = None) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._timeout = timeout or _timeout()
        self._known: dict[tuple[str, Kind], Path | None] = {}
        self._missing: dict[str, str] = {}

    @classmethod
    def of(cls, wanted: bool | str | Sequence[str]) -> Debuginfod | None:
        """What the option `debuginfod` stands for: True is DEBUGINFOD_URLS.

        Raises:
            SymbolError: no server is named that may be asked, or something that is none.
        """
        if not wanted:
            return None
        told = os.environ.get("DEBUGINFOD_URLS", "")
        words: Sequence[str] = _unsigned(told)
        if wanted is not True:
            words = wanted.split() if isinstance(wanted, str) else list(wanted)
        if not words:
            raise SymbolError(
                "debuginfod: DEBUGINFOD_URLS wants signatures (ima:), which are not checked here"
                if told.split()
                else "debuginfod: DEBUGINFOD_URLS names no server",
                "set it, or give debuginfod=URL",
            )
        for url in words:
            if not re.match("https?://[^/]", url):
                raise SymbolError(
                    f"debuginfod: {url!r} is no URL of a server",
                    "as https://HOST/; --debuginfod stands last, or is --debuginfod=URL",
                )
        return cls(words)

    def find(self, build_id: str, kind: Kind, notes: list[str]) -> Path | None:
        """The file of a build, None where nobody has it; `notes` then gets why."""
        wanted = buildid.normal(build_id)
        if not _HEX.fullmatch(wanted):
            return None
        key = wanted, kind
        if key not in self._known:
            self._known[key] = _cached(wanted, kind) or self._fetched(wanted, kind)
        found = self._known[key]
        if found is None:
            said = [f"{url} {why}" for url, why in self._missing.items()]
            notes.append(f"debuginfod: {'; '.join(said) or f'no server has its {kind}'}")
        return found

    def _fetched(self, build_id: str, kind: Kind) -> Path | None:
        for url in self._urls:
            if url in self._missing:
                continue
            try:
                with urllib.request.urlopen(
                    f"{url}/buildid/{build_id}/{kind}", timeout=self._timeout
                ) as answer:
                    expected = answer.headers.get("Content-Length", "")
                    size = int(expected) if expected.isdecimal() else None
                    return _stored(answer, _place(build_id, kind), size)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 404:
                    self._missing[url] = f"answers {error.code}"
            except (OSError, ValueError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                self._missing[url] = f"is not to be had: {reason}"
        return None


def _unsigned(told: str) -> list[str]:
    """The servers of DEBUGINFOD_URLS without those behind `ima:enforcing`, up to an `ima:ignore`:
    of these only files with a signature are wanted, and debuginfod's own clients, with whom the
    cache is shared, take what is there for checked (elfutils 0.192: debuginfod-client.c)."""
    found: list[str] = []
    signed = False
    for word in told.split():
        if word.startswith("ima:"):
            signed = word != "ima:ignore"
        elif not signed:
            found.append(word)
    return found


def _timeout() -> float:
    with suppress(ValueError):
        return max(float(os.environ.get("DEBUGINFOD_TIMEOUT", "")), 0.1)
    return _TIMEOUT


def _place(build_id: str, kind: Kind) -> Path:
    """debuginfod-client.c: $DEBUGINFOD_CACHE_PATH, else XDG_CACHE_HOME/debuginfod_client."""
    root = os.environ.get("DEBUGINFOD_CACHE_PATH")
    if not root:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = str(Path(home) / "debuginfod_client")
    return Path(root) / build_id / kind


def _cached(build_id: str, kind: Kind) -> Path | None:
    with suppress(OSError, RuntimeError):
        place = _place(build_id, kind)
        if place.is_file() and place.stat().st_size:
            return place
    return None


def _stored(answer: IO[bytes], place: Path, expected: int | None) -> Path:
    """The body of an answer as a file that is there whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=place.name)
    try:
        size = 0
        with os.fdopen(handle, "wb") as file:
            while piece := answer.read(_PIECE):
                size += len(piece)
                if size > _MOST:
                    raise ValueError(f"more than {_MOST >> 30} GiB")
                file.write(piece)
        if size != (size if expected is None else expected):
            raise ValueError(f"{expected} bytes were promised, {size} came")
        Path(temporary).replace(place)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    return place
