"""What of a decoded recording is kept in its cache, and when that still holds.

Two parts: `names`, a row a sample, and `stacks`, only once they were asked for; each with what
there was to say by then. Both hold as long as the recording, the symbol options, the user and what
the kernel shows to users, this boot, every symbol file that was used, and the folders where others
would have been found, stay as they were.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
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
from kvmperf_magic.sampler.sysfs import read_text
from kvmperf_magic.stacks import Addresses
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.table import Categorical, Column, Table

_FORMAT = 4  # changes with what is kept, and with how it is worked out
_NUMBERS = ("time", "period", "mode", "ip", "pid", "tid", "cpu", "vcpu")
_STRINGS = ("event", "comm", "symbol", "dso", "machine")
_SOURCES = ("dso", "source", "symbols", "note")
_DEBUG = Path("/usr/lib/debug")  # of the distributions: where symbols may be installed later


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
        # who may see which addresses of the kernel, and look into which processes
        "user": [os.geteuid(), read_text("/proc/sys/kernel/kptr_restrict"), boot_id()],
    }


def _looked_for(sources: Table, options: SymbolOptions) -> dict[str, list[int] | None]:
    """The identities of the files that names came from, of those that were not there, and of the
    folders where symbols/files.py and symbols/kernel.py look for others (None: not there)."""
    named = [*asdict(options).values(), *options.guest_elfs().values()]
    mapped = set(sources["dso"].tolist())
    paths = {*sources["source"].tolist(), *mapped}
    paths |= {str(path) for path in named if isinstance(path, str | Path)}
    for parent in {str(Path(name).parent) for name in mapped if name.startswith("/")}:
        paths |= {f"{_DEBUG}{parent}", f"{parent}/.debug"}
    trees = [_DEBUG / ".build-id"]
    with suppress(RuntimeError):  # a user without a home
        trees.append(Path.home() / ".debug" / ".build-id")
    for tree in trees:
        paths.add(str(tree))
        with suppress(OSError):
            paths |= {str(folder) for folder in tree.iterdir()}
    paths |= {"/boot", f"{_DEBUG}/boot", "/lib/modules"}
    return {
        path: identity(path)
        for path in sorted(paths)
        # what is in /proc goes with the process; its names stay those of the recording
        if path.startswith("/") and not path.startswith("/proc/")
    }


@dataclass(frozen=True)
class Said:
    """What there is to say about the names met so far: what stood in the way of them and of
    stacks, a line each, and the table of where those of each DSO came from."""

    warnings: list[str]
    sources: Table


class Memory:
    """The cache of one recording, for one set of symbol options.

    `said` tells of what this process decoded itself. What the recording is, is looked up here: to
    be made as soon as the file was opened, as another may come to stand at its path.
    """

    def __init__(self, file: PerfFile, options: SymbolOptions, said: Callable[[], Said]) -> None:
        self._cache = Cache(file.path)
        self._options = options
        self._said = said
        self._key = key_of(file, options)

    def keep(self, decoded: Decoded) -> Decoded:
        """Write what every answer needs, while these go on; stacks when somebody asks for them."""
        if self._key is None:
            return decoded
        profile = decoded.profile
        meta: Meta = {
            **self._told(),
            "unit": profile.unit,
            "tasks": profile.tasks_later is not None,
            "strings": {name: getattr(profile, name).categories for name in _STRINGS},
        }
        arrays = {name: getattr(profile, name) for name in _NUMBERS}
        arrays |= {name: getattr(profile, name).codes for name in _STRINGS}
        arrays["machine_pid"] = decoded.machine_pid
        self._write("names", meta, arrays)

        def stacked() -> Stacked:
            found = profile.stacked
            self.keep_stacks(found, decoded.addresses)
            return found

        kept = replace(profile, stacked_later=stacked)
        return Decoded(kept, decoded.machine_pid, lambda: decoded.addresses)

    def names(self, afresh: Callable[[], Decoded]) -> Remembered | None:
        """What was kept, if it still holds; `afresh` decodes where stacks were not kept."""
        found = self._load("names")
        if found is None:
            return None
        meta, arrays = found
        kept = _KeptStacks(self, afresh, self._said, _said(meta))
        columns: dict[str, Any] = {name: arrays[name] for name in _NUMBERS}
        columns |= {name: Categorical(arrays[name], meta["strings"][name]) for name in _STRINGS}
        profile = Profile(**columns, stacked_later=lambda: kept.both()[0], unit=meta["unit"])
        decoded = Decoded(profile, arrays["machine_pid"], lambda: kept.both()[1])
        return Remembered(decoded, kept.said, bool(meta["tasks"]))

    def keep_stacks(self, stacked: Stacked, addresses: Addresses) -> None:
        """Write the stacks of the samples whose names were kept."""
        frames = stacked.frames
        table = np.zeros(len(addresses.ip), np.int32)
        table[addresses.which] = stacked.stacks.frames
        meta: Meta = {
            **self._told(),
            "symbol": frames.symbol.categories,
            "dso": frames.dso.categories,
        }
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

    def stacks(self) -> tuple[Stacked, Addresses, Said] | None:
        """The kept stacks, if they still hold, and what was said of them and of the names."""
        found = self._load("stacks")
        if found is None:
            return None
        meta, a = found
        symbol, dso = Categorical(a["symbol"], meta["symbol"]), Categorical(a["dso"], meta["dso"])
        addresses = Addresses(a["offsets"], a["which"], a["ip"], a["mode"], a["kind"])
        stacks = Stacks(a["offsets"], a["table"][a["which"]])
        stacked = Stacked(a["stack"], stacks, FrameTable(symbol, dso, a["frame_mode"]))
        return stacked, addresses, _said(meta)

    def _told(self) -> Meta:
        """What was said so far, and the files that it depends on."""
        said = self._said()
        return {
            "files": _looked_for(said.sources, self._options),
            "warnings": said.warnings,
            "sources": [said.sources[name].tolist() for name in _SOURCES],
        }

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
        same = all(identity(path) == was for path, was in found[0]["files"].items())
        return found if same else None


@dataclass(frozen=True)
class Remembered:
    """What a cache held: the samples with their names; `said` as a first opening would say it;
    whether the recording has `tasks`, which are not in the cache."""

    decoded: Decoded
    said: Callable[[], Said]
    tasks: bool


class _KeptStacks:
    """Stacks of a recording whose names came from the cache: from there too, or worked out.

    `fresh` tells what this process found out itself, `said` what was said of the names alone.
    """

    def __init__(
        self,
        memory: Memory,
        afresh: Callable[[], Decoded],
        fresh: Callable[[], Said],
        said: Said,
    ) -> None:
        self._memory, self._afresh, self._fresh = memory, afresh, fresh
        self._both: tuple[Stacked, Addresses] | None = None
        self._said: Said | None = said

    def said(self) -> Said:
        return self._fresh() if self._said is None else self._said

    def both(self) -> tuple[Stacked, Addresses]:
        if self._both is None:
            found = self._memory.stacks()
            if found is not None:
                self._both, self._said = found[:2], found[2]
            else:
                decoded = self._afresh()
                self._both = decoded.profile.stacked, decoded.addresses
                self._said = None
                self._memory.keep_stacks(*self._both)
        return self._both


def _said(meta: Meta) -> Said:
    dso, source, symbols, note = meta["sources"]
    sources: dict[str, Column | Callable[[], Column]] = {
        "dso": categorical(dso),
        "source": categorical(source),
        "symbols": np.array(symbols, np.int64),
        "note": categorical(note),
    }
    return Said(meta["warnings"], Table(sources))
