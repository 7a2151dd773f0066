"""The callchains of a recording with what the kernel left to be worked out."""

from __future__ import annotations

from collections.abc import Sequence

from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.reader import PerfFile
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Symbolizer
from kvmperf_magic.table import Categorical
from kvmperf_magic.unwinding import deferred, dwarf, lbr


def complete(
    file: PerfFile, spaces: AddressSpaces, symbolizer: Symbolizer, warnings: list[str]
) -> Chains:
    """The chains of all samples. Where no event records anything to make user frames of, they
    are those of the samples, untouched. What could not be done is added to `warnings`."""
    samples, events = file.samples, file.events
    chains = samples.chains
    if len(file.sideband.deferred):
        chains = deferred.joined(samples, file.sideband.deferred, chains)
    if not (lbr.recorded(events) or dwarf.recorded(events)):
        return chains
    fields = Fields(samples, events)
    if lbr.recorded(events):
        chains = lbr.stitched(samples, events, fields, chains)
    if dwarf.recorded(events):
        mmap = file.sideband.mmap
        files = dwarf.MappedFiles(
            spaces,
            _categories(mmap.column("filename")),
            _categories(mmap.column("build_id")),
            mmap["pid"],
            symbolizer.find,
        )
        arch = file.header.arch
        chains = dwarf.unwound(samples, events, fields, chains, files, arch, warnings)
    return chains


def _categories(column: object) -> Sequence[str]:
    assert isinstance(column, Categorical)
    return column.categories
