"""Recordings in the formats of other programs: the `to_...` methods, and the choice by suffix."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from kvmperf_magic.errors import QueryError
from kvmperf_magic.files import written

if TYPE_CHECKING:
    from kvmperf_magic.callchains import Callchains
    from kvmperf_magic.export.lanes import About
    from kvmperf_magic.lost import Lost
    from kvmperf_magic.perfdata.header import Header
    from kvmperf_magic.profile.profile import Profile
    from kvmperf_magic.reportview import ReportView
    from kvmperf_magic.table import Table

_Modes = str | Iterable[str] | None

# how a file's name ends, longest first, and the format it stands for
SUFFIXES = {
    ".speedscope.json.gz": "speedscope",
    ".speedscope.json": "speedscope",
    ".gecko.json.gz": "gecko",
    ".gecko.json": "gecko",
    ".folded.gz": "folded",
    ".parquet": "parquet",
    ".json.gz": "gecko",
    ".csv.gz": "csv",
    ".folded": "folded",
    ".pb.gz": "pprof",
    ".pprof": "pprof",
    ".json": "json",
    ".html": "html",
    ".txt": "folded",
    ".csv": "csv",
}
TABLE_FORMATS = ("csv", "json")  # what any table has
DIFF_FORMATS = ("html", *TABLE_FORMATS)


def suffixes_of(formats: Iterable[str]) -> list[str]:
    """The suffixes of these formats, as SUFFIXES orders them."""
    wanted = set(formats)
    return [suffix for suffix, form in SUFFIXES.items() if form in wanted]


def format_of(path: str | Path, formats: Iterable[str] = SUFFIXES.values()) -> str:
    """The format that a file's name asks for; QueryError where it is none of `formats`."""
    name = Path(path).name.lower()
    known = suffixes_of(formats)
    for suffix in known:
        if name.endswith(suffix):
            return SUFFIXES[suffix]
    raise QueryError(
        f"{path}: a file's name says its format, and this one is none that can be written here",
        f"one of {' '.join(sorted(known))}",
    )


class _View(Protocol):
    """What of a Recording the exports are made of."""

    @property
    def name(self) -> str: ...
    @property
    def header(self) -> Header: ...
    @property
    def sides(self) -> tuple[str, ...]: ...
    @property
    def profile(self) -> Profile: ...
    @property
    def samples(self) -> Table: ...
    @property
    def lost(self) -> Lost: ...
    def answerable(self, modes: _Modes = None, event: str | None = None) -> Self: ...
    def stack_chains(self) -> Callchains: ...
    def report(self) -> ReportView: ...


class Exporting:
    """The exports of a Recording, or of a view of one.

    Each gives the content, and writes it to `path` if one is given; a name that ends in .gz is
    written compressed. Periods of different events cannot be added: without `event` an export
    is of the first event with samples, as an answer is (to_parquet, to_csv and to_json: of all).
    """

    def to_folded(
        self: _View,
        path: str | Path | None = None,
        modes: _Modes = None,
        event: str | None = None,
    ) -> str:
        """Folded stacks, a line each with its sum of periods."""
        from kvmperf_magic.export.folded import folded

        return written(folded(self.answerable(modes, event).profile), path)

    def to_speedscope(
        self: _View,
        path: str | Path | None = None,
        modes: _Modes = None,
        event: str | None = None,
    ) -> str:
        """speedscope's JSON: a sampled profile for each thread and each vCPU."""
        from kvmperf_magic.export.speedscope import speedscope

        view = self.answerable(modes, event)
        return written(speedscope(view.profile, _about(view)), path)

    def to_gecko(
        self: _View,
        path: str | Path | None = None,
        modes: _Modes = None,
        event: str | None = None,
    ) -> str:
        """The Firefox Profiler's JSON: a thread for each thread and vCPU, a category a mode."""
        from kvmperf_magic.export.gecko import gecko

        view = self.answerable(modes, event)
        return written(gecko(view.profile, _about(view)), path)

    def to_pprof(
        self: _View,
        path: str | Path | None = None,
        modes: _Modes = None,
        event: str | None = None,
    ) -> bytes:
        """pprof's profile.proto, compressed; mode, machine, vCPU, comm, pid and tid are labels.
        Needs protobuf (extra `export`)."""
        from kvmperf_magic.export.pprof import pprof

        view = self.answerable(modes, event)
        return written(pprof(view.profile, view.stack_chains(), _about(view)), path)

    def to_parquet(self: _View, path: str | Path | None = None) -> bytes:
        """All samples with their stacks as one Parquet file. Needs pyarrow (extra `tables`)."""
        from kvmperf_magic.export.parquet import parquet

        content = parquet(self.profile, self.samples, self.stack_chains(), _about(self))
        return written(content, path)

    def to_csv(self: _View, path: str | Path | None = None) -> str:
        """The table of samples as CSV."""
        return self.samples.to_csv(path)

    def to_json(self: _View, path: str | Path | None = None) -> str:
        """The table of samples as JSON."""
        return self.samples.to_json(path)

    def to_html(self: _View, path: str | Path | None = None) -> str:
        """One self-contained page: flame graph and table."""
        return self.report().to_html(path)


def _about(view: _View) -> About:
    from kvmperf_magic.export.lanes import About

    header, clock = view.header, view.header.clock_data
    facts: dict[str, Any] = {
        "recorded on": " ".join(filter(None, (header.hostname, header.os_release))),
        "command": " ".join(header.cmdline or ()),
        "cpu": header.cpudesc,
        "perf": header.perf_version,
        "weight": view.profile.unit,
        "complete": str(view.lost),
    }
    return About(
        name=f"{view.name}: {' and '.join(view.sides)}",
        facts={name: str(value) for name, value in facts.items() if value},
        wall_offset=clock.wall_ns - clock.clock_ns if clock else None,
    )
