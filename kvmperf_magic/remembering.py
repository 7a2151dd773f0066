"""What of a decoded recording is kept in its cache, and when that still holds.

Two parts: `names`, a row a sample, and `stacks`, only once they were asked for. Both hold as long
as the recording, the symbol options and every symbol file that was used or looked for stay as
they were; the names of this machine's kernel also end with its boot.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.cache import Arrays, Cache, Meta, content_digest, identity
from kvmperf_magic.decoding import Decoded
from kvmperf_magic.perfdata.reader import PerfFile
from kvmperf_magic.profile.profile import FrameTable, Profile, Stacked, Stacks, categorical
from kvmperf_magic.sampler.facts import boot_id
from kvmperf_magic.stacks import Addresses
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.symbolizer import Symbolizer
from kvmperf_magic.table import Categorical, Table

_FORMAT = 1  # changes with what is kept, and with how it is worked out
_NUMBERS = ("time", "period", "mode", "ip", "pid", "tid", "cpu", "vcpu")
_STRINGS = ("event", "comm", "symbol", "dso", "machine")
_SOURCES = ("dso", "source", "symbols", "note")


def key_of(file: PerfFile, options: SymbolOptions) -> Meta | None:
    """What the names depend on, but for the symbol files; None where there can be no cache."""
    from kvmperf_magic import __version__

    if not Path(file.path).is_file():
        return None
    told = {name: None if value is None else str(value) for name, value in asdict(options).items()}
    return {
        "format": [_FORMAT, __version__, sys.byteorder],
        "file": [identity(file.path), content_digest(file.path)],
        "options": told,
        "unwinder": find_spec("drgn") is not None,  # installed later, it finds more frames
    }


def _used_files(symbolizer: Symbolizer, options: SymbolOptions) -> dict[str, list[int] | None]:
    """The identities of the files that names came from, and of those that were not there."""
    sources = symbolizer.sources
    named = [*asdict(options).values(), *options.guest_elfs().values()]
    paths = {*sources["source"].tolist(), *sources["dso"].tolist()}
    paths |= {str(path) for path in named if isinstance(path, str | Path)}
    return {
        path: identity(path)
        for path in sorted(paths)
        # what is in /proc goes with the process; its names stay those of the recording
        if path.startswith("/") and not path.startswith("/proc/")
    }


@dataclass(frozen=True)
class Remembered:
    """What a cache held: the samples with their names, and what there was to say about these."""

    decoded: Decoded
    warnings: list[str]
    sources: Table


class Memory:
    """The cache of one recording, for one set of symbol options."""

    def __init__(self, file: PerfFile, options: SymbolOptions) -> None:
        self._cache = Cache(file.path)
        self._options = options
        self._key = key_of(file, options)

    def keep(self, decoded: Decoded, symbolizer: Symbolizer) -> Decoded:
        """Write what every answer needs, while these go on; stacks when somebody asks for them."""
        if self._key is None:
            return decoded
        profile = decoded.profile
        sources = symbolizer.sources
        holds: Meta = {
            "files": _used_files(symbolizer, self._options),
            "boot": boot_id() if "/proc/kallsyms" in sources["source"].tolist() else "",
        }
        meta: Meta = {
            **holds,
            "warnings": symbolizer.warnings,
            "sources": [sources[name].tolist() for name in _SOURCES],
            "unit": profile.unit,
            "strings": {name: getattr(profile, name).categories for name in _STRINGS},
        }
        arrays = {name: getattr(profile, name) for name in _NUMBERS}
        arrays |= {name: getattr(profile, name).codes for name in _STRINGS}
        arrays["machine_pid"] = decoded.machine_pid
        self._write("names", meta, arrays)

        def stacked() -> Stacked:
            found = profile.stacked
            self.keep_stacks(found, decoded.addresses, holds)
            return found

        kept = replace(profile, stacked_later=stacked)
        return Decoded(kept, decoded.machine_pid, lambda: decoded.addresses)

    def names(self, afresh: Callable[[], Decoded]) -> Remembered | None:
        """What was kept, if it still holds; `afresh` decodes where stacks were not kept."""
        found = self._load("names")
        if found is None:
            return None
        meta, arrays = found
        kept = _KeptStacks(self, meta, afresh)
        columns: dict[str, Any] = {name: arrays[name] for name in _NUMBERS}
        columns |= {name: Categorical(arrays[name], meta["strings"][name]) for name in _STRINGS}
        profile = Profile(**columns, stacked_later=lambda: kept.both[0], unit=meta["unit"])
        decoded = Decoded(profile, arrays["machine_pid"], lambda: kept.both[1])
        return Remembered(decoded, meta["warnings"], _sources(meta["sources"]))

    def keep_stacks(self, stacked: Stacked, addresses: Addresses, holds: Meta) -> None:
        """Write the stacks of the samples whose names were kept."""
        frames = stacked.frames
        table = np.zeros(len(addresses.ip), np.int32)
        table[addresses.which] = stacked.stacks.frames
        meta: Meta = {**holds, "symbol": frames.symbol.categories, "dso": frames.dso.categories}
        arrays: dict[str, NDArray[Any]] = {
            "stack": stacked.stack,
            "offsets": addresses.offsets,
            "which": addresses.which,
            "ip": addresses.ip,
            "mode": addresses.mode,
            "kind": addresses.kind,
            "table": table,
            "symbol": frames.symbol.codes,
            "dso": frames.dso.codes,
            "frame_mode": frames.mode,
        }
        self._write("stacks", meta, arrays)

    def stacks(self) -> tuple[Stacked, Addresses] | None:
        """The kept stacks, if they still hold."""
        found = self._load("stacks")
        if found is None:
            return None
        meta, a = found
        symbol, dso = Categorical(a["symbol"], meta["symbol"]), Categorical(a["dso"], meta["dso"])
        addresses = Addresses(a["offsets"], a["which"], a["ip"], a["mode"], a["kind"])
        stacks = Stacks(a["offsets"], a["table"][a["which"]])
        return Stacked(a["stack"], stacks, FrameTable(symbol, dso, a["frame_mode"])), addresses

    def _write(self, part: str, meta: Meta, arrays: Arrays) -> None:
        """In the background: numpy goes on meanwhile, and the process ends when it is written."""
        assert self._key is not None
        arguments = part, self._key, meta, arrays
        name = f"kvmperf-cache-{part}"
        threading.Thread(target=self._cache.save, args=arguments, name=name).start()

    def _load(self, part: str) -> tuple[Meta, dict[str, NDArray[Any]]] | None:
        found = None if self._key is None else self._cache.load(part, self._key)
        if found is None:
            return None
        meta = found[0]
        same = all(identity(path) == was for path, was in meta["files"].items())
        return found if same and meta["boot"] in ("", boot_id()) else None


class _KeptStacks:
    """Stacks of a recording whose names came from the cache: from there too, or worked out."""

    def __init__(self, memory: Memory, meta: Meta, afresh: Callable[[], Decoded]) -> None:
        self._memory, self._meta, self._afresh = memory, meta, afresh

    @cached_property
    def both(self) -> tuple[Stacked, Addresses]:
        found = self._memory.stacks()
        if found is None:
            decoded = self._afresh()
            found = decoded.profile.stacked, decoded.addresses
            holds = {name: self._meta[name] for name in ("files", "boot")}
            self._memory.keep_stacks(*found, holds)
        return found


def _sources(columns: list[list[Any]]) -> Table:
    dso, source, symbols, note = columns
    return Table(
        {
            "dso": categorical(dso),
            "source": categorical(source),
            "symbols": np.array(symbols, np.int64),
            "note": categorical(note),
        }
    )
