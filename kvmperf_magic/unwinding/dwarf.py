"""User frames of samples with a copy of the user's registers and stack.

tools/perf/util/machine.c: thread__resolve_callchain_unwind() and unwind-libunwind-local.c:
_unwind__get_entries(). The unwinder itself is drgn's, of the extra `[dwarf]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.guests.context import is_guest, modes_of
from kvmperf_magic.perfdata.abi import CONTEXT_USER, SampleType
from kvmperf_magic.perfdata.attr import Event
from kvmperf_magic.perfdata.chains import Chains
from kvmperf_magic.perfdata.fields import Fields
from kvmperf_magic.perfdata.samples import SampleColumns
from kvmperf_magic.symbols.files import Found
from kvmperf_magic.symbols.perfmap import is_anonymous
from kvmperf_magic.symbols.spaces import AddressSpaces, Maps
from kvmperf_magic.unwinding.registers import Registers, of_arch

if TYPE_CHECKING:
    from kvmperf_magic.unwinding.process import Process

DEEPEST = 127  # PERF_MAX_STACK_DEPTH: user frames, the interrupted one among them
_DUMPS = int(SampleType.REGS_USER | SampleType.STACK_USER)
_SHOWN = 3  # files that a warning names

FindFiles = Callable[[str, str, int], Found]


def recorded(events: Sequence[Event]) -> bool:
    """Whether any event copies registers and stack."""
    return any(event.attr.sample_type & _DUMPS == _DUMPS for event in events)


def unwound(
    samples: SampleColumns,
    events: Sequence[Event],
    fields: Fields,
    chains: Chains,
    files: MappedFiles,
    arch: str | None,
    warnings: list[str],
) -> Chains:
    """The chains with the user frames that were unwound behind what the kernel walked.

    A chain that has user frames already stays as it is, and so does the one of a guest's sample
    and of a sample without a dump. Where nothing can be unwound, the address that the registers
    tell is the only user frame. `arch` is the recording machine's, as `uname -m` names it.
    What stood in the way is added to `warnings`, a line a cause.
    """
    rows = _dumped(samples, events, fields, chains)
    if not len(rows):
        return chains
    registers = of_arch(arch)
    if registers is None:
        warnings.append(f"{len(rows)} user stacks are of {arch or 'a machine without a name'}")
        return chains
    known = _understood(registers, fields, rows)
    if not known.all():
        count = np.count_nonzero(~known)
        warnings.append(f"{count} user stacks have other registers than {arch} needs")
        rows = rows[known]
        if not len(rows):
            return chains
    try:
        from kvmperf_magic.unwinding.process import Process
    except ImportError:
        warnings.append(
            f"{len(rows)} user stacks are not unwound: pip install 'kvmperf_magic[dwarf]'"
        )
        ip = fields.register(registers.ip)[rows]
        return _appended(chains, rows, np.arange(len(rows) + 1), ip)
    offsets, words = _Unwinding(registers, samples, fields, files, Process).of(rows)
    warnings += files.missing()
    return _appended(chains, rows, offsets, words)


@dataclass
class MappedFiles:
    """Which ELF files the maps of a recording are of, and which are not at hand.

    `filenames` and `build_ids` are what the maps of `spaces` index, `map_pids` is the process of
    each MMAP record; `find` gives the files by name, build-id and pid.
    """

    spaces: AddressSpaces
    filenames: Sequence[str]
    build_ids: Sequence[str]
    map_pids: NDArray[np.int32]
    find: FindFiles
    _found: dict[tuple[str, str, int], Found] = field(default_factory=dict)
    _missed: dict[str, int] = field(default_factory=dict)
    _why: dict[str, str] = field(default_factory=dict)

    def of(self, maps: Maps, machine: str) -> list[Found | None]:
        """For each map its files, None where they are not here or it is of no file."""
        listed: list[Found | None] = []
        for file, build, row in zip(
            maps.filename.tolist(), maps.build_id.tolist(), maps.row.tolist(), strict=True
        ):
            name = self.filenames[file]
            if is_anonymous(name):
                listed.append(None)
                continue
            key = name, self.build_ids[build], int(self.map_pids[row])
            found = self._found.get(key)
            if found is None:
                found = self._found[key] = self.find(*key)
            if found.runtime is None or found.runtime.machine != machine:
                self._why[name] = found.note or "is of another machine"
                listed.append(None)
            else:
                listed.append(found)
        return listed

    def miss(self, file: NDArray[np.int32]) -> None:
        """Count the stacks that could not be followed through these files."""
        for one, count in zip(*np.unique(file, return_counts=True), strict=True):
            name = self.filenames[int(one)]
            self._missed[name] = self._missed.get(name, 0) + int(count)

    def missing(self) -> list[str]:
        """One line on the files that stacks could not be followed through, if there are any."""
        if not self._missed:
            return []
        by_count = sorted(self._missed, key=lambda name: -self._missed[name])
        named = ", ".join(f"{name} ({self._why.get(name, '')})" for name in by_count[:_SHOWN])
        more = f" and {len(by_count) - _SHOWN} more" if len(by_count) > _SHOWN else ""
        return [f"{sum(self._missed.values())} user stacks end at files not here: {named}{more}"]


class _Unwinding:
    """One pass over the samples of one kind of machine, an address space after the other."""

    def __init__(
        self,
        registers: Registers,
        samples: SampleColumns,
        fields: Fields,
        files: MappedFiles,
        process: type[Process],
    ) -> None:
        self.registers, self.samples, self.fields = registers, samples, fields
        self.files, self.process = files, process

    def of(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The user frames of these samples: offsets and addresses."""
        from tqdm import tqdm  # as text: of a widget a saved notebook keeps an error message

        samples, spaces = self.samples, self.files.spaces
        epoch = spaces.epoch_of(samples.pid[rows], samples.time[rows])
        order = np.argsort(epoch, kind="stable")
        frames: list[NDArray[np.uint64]] = []
        lengths = np.zeros(len(rows), np.int64)
        with tqdm(total=len(rows), desc="unwinding", unit=" stacks", delay=1, leave=False) as bar:
            for group in np.split(order, np.flatnonzero(np.diff(epoch[order])) + 1):
                counts, ips = self._one_space(int(epoch[group[0]]), rows[group], bar.update)
                lengths[group] = counts
                frames.append(ips)
        ends = np.cumsum(lengths[order])
        start = np.empty(len(rows), np.int64)
        start[order] = ends - lengths[order]
        words = np.concatenate(frames)
        return Chains(words, start, lengths).compact()

    def _one_space(
        self, epoch: int, rows: NDArray[np.intp], done: Callable[[], object]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Frames of samples of one address space: how many each, and their addresses."""
        maps = self.files.spaces.maps(epoch)
        found = self.files.of(maps, self.registers.machine)
        process = self.process(self.registers, maps, found)
        fields = self.fields
        ip = fields.register(self.registers.ip)[rows].tolist()
        sp = fields.register(self.registers.sp)[rows].tolist()
        pt_regs = self._pt_regs(rows)
        stack = fields.stack_user
        seen: dict[tuple[bytes, int], list[int]] = {}
        counts: list[int] = []
        ips: list[int] = []
        for i, (row, first, top) in enumerate(zip(rows.tolist(), ip, sp, strict=True)):
            dump = stack[row].tobytes()
            # a thread that sleeps in a loop is sampled with the same stack again and again
            key = pt_regs[i].tobytes(), hash(dump)
            callers = seen.get(key)
            if callers is None:
                callers = seen[key] = process.callers(key[0], top, dump, DEEPEST - 1)
            ips.append(first)
            ips += callers
            counts.append(1 + len(callers))
            done()
        return self._cut(maps, found, np.array(counts), np.array(ips, np.uint64))

    def _pt_regs(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """The registers of each row as the unwinder takes them."""
        dumps, masks = self.fields.regs_user.take(rows), self.fields.regs_user_mask[rows]
        made: NDArray[np.uint8] | None = None
        for mask in np.unique(masks).tolist():
            mine = np.flatnonzero(masks == mask)
            place = dumps.start[mine, None] + np.arange(mask.bit_count())
            part = self.registers.pt_regs(dumps.pool[place], mask)
            if made is None:
                made = np.zeros((len(rows), part.shape[1]), np.uint8)
            made[mine] = part
        assert made is not None
        return made

    def _cut(
        self,
        maps: Maps,
        found: list[Found | None],
        counts: NDArray[np.int64],
        ips: NDArray[np.uint64],
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """What can be believed: no frame behind one whose file is not here, as its registers are
        a guess; and none from the first on that is in no map."""
        at = maps.find(ips)
        end = np.cumsum(counts)
        start = end - counts
        place = np.arange(len(ips)) - np.repeat(start, counts)
        named = np.array([not is_anonymous(name) for name in self.files.filenames], np.bool_)
        blind = np.array([one is None for one in found], np.bool_)
        blind &= named[maps.filename]
        last = np.append(blind, False)[at]  # -1, in no map, is the appended
        most = np.minimum(
            np.minimum.reduceat(np.where(last, place + 1, DEEPEST), start),
            np.minimum.reduceat(np.where((at < 0) & (place > 0), place, DEEPEST), start),
        )
        kept = place < np.repeat(most, counts)
        ended = kept & last
        self.files.miss(maps.filename[at[ended]])
        return np.minimum(counts, most), ips[kept]


def _dumped(
    samples: SampleColumns, events: Sequence[Event], fields: Fields, chains: Chains
) -> NDArray[np.intp]:
    """The samples of the host that have a stack dump, and no user frames yet."""
    of_event = np.array([e.attr.sample_type & _DUMPS == _DUMPS for e in events], np.bool_)
    rows = np.flatnonzero(of_event[samples.event] & ~is_guest(modes_of(samples.misc)))
    rows = rows[(fields.regs_user_abi[rows] != 0) & (fields.stack_user.length[rows] > 0)]
    offsets, words = chains.take(rows).compact()
    user = np.repeat(np.arange(len(rows)), np.diff(offsets))[words == np.uint64(CONTEXT_USER)]
    return np.asarray(rows[np.bincount(user, minlength=len(rows)) == 0])


def _understood(registers: Registers, fields: Fields, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which of the dumps are of this machine's own ABI, whole, and with what is needed at least."""
    masks, inverse = np.unique(fields.regs_user_mask[rows], return_inverse=True)
    enough = np.array([registers.knows(mask) for mask in masks.tolist()], np.bool_)
    width = np.array([mask.bit_count() for mask in masks.tolist()], np.int64)
    own = fields.regs_user_abi[rows] == registers.abi
    return np.asarray(own & enough[inverse] & (fields.regs_user.length[rows] == width[inverse]))


def _appended(
    chains: Chains,
    rows: NDArray[np.intp],
    offsets: NDArray[np.int64],
    words: NDArray[np.uint64],
) -> Chains:
    """Behind the chains of these rows PERF_CONTEXT_USER and the addresses given."""
    kept, old = chains.take(rows).compact()
    both = np.diff(kept) + np.diff(offsets) + 1
    bounds = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(both, out=bounds[1:])
    made = np.full(bounds[-1], CONTEXT_USER, np.uint64)
    length = np.diff(kept)
    made[Chains(made, bounds[:-1], length).places()] = old
    made[Chains(made, bounds[:-1] + length + 1, np.diff(offsets)).places()] = words
    return chains.replaced(rows, bounds, made)
