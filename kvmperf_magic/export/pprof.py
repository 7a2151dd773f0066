"""pprof's profile.proto, compressed: for `pprof` (or `go tool pprof`) and what reads its files."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.callchains import Callchains
from kvmperf_magic.export.lanes import RINGS, About
from kvmperf_magic.export.pprofproto import messages
from kvmperf_magic.export.units import unit_of
from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.groups import codes_of, group, group_rows
from kvmperf_magic.profile.profile import GUEST_CODES, Profile


def pprof(profile: Profile, chains: Callchains, about: About) -> bytes:
    """Samples merged by stack, mode, machine, vCPU, comm, pid and tid: these are labels (strings,
    because pprof drops a number that is 0). Values: the number of samples and the sum of periods.

    `chains` has the frames of one sample for each stack that is used, in the order of
    `group(profile.stack)`. Addresses are those sampled; the mapping of a DSO spans the addresses
    seen in it, and is called by its name. The outermost frame of a guest's stack is its ring.
    """
    return gzip.compress(_Writer().write(profile, chains, about), 6, mtime=0)


class _Writer:
    def __init__(self) -> None:
        self.kinds = messages()
        self.profile = self.kinds["Profile"]()
        self.strings: dict[str, int] = {"": 0}

    def string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def write(self, profile: Profile, chains: Callchains, about: About) -> bytes:
        made, unit = self.profile, unit_of(profile)
        made.sample_type.add(type=self.string("samples"), unit=self.string("count"))
        made.sample_type.add(type=self.string(unit.event), unit=self.string(unit.name))
        made.default_sample_type = self.string(unit.event)
        made.period_type.type, made.period_type.unit = (
            self.string(unit.event),
            self.string(unit.name),
        )
        if len(profile):
            made.period = int(np.median(profile.period))
            made.duration_nanos = int(profile.time.max() - profile.time.min())
            if about.wall_offset is not None:
                made.time_nanos = int(profile.time.min()) + about.wall_offset
            self._samples(profile, self._stacks(chains))
        made.comment.extend(self.string(f"{name}: {text}") for name, text in about.facts.items())
        made.string_table.extend(self.strings)
        whole: bytes = made.SerializeToString()
        return whole

    def _samples(self, profile: Profile, stacks: list[bytes]) -> None:
        used = group(profile.stack)
        keys = (
            profile.mode,
            profile.vcpu,
            profile.pid,
            profile.tid,
            codes_of(profile.machine),
            codes_of(profile.comm),
        )
        labels = group_rows(keys, len(profile))
        spelled = [self._labels(profile, row) for row in labels.row.tolist()]
        found = group(used.ids * len(labels) + labels.ids)
        counts = np.bincount(found.ids)
        weights = np.zeros(len(found), np.uint64)
        np.add.at(weights, found.ids, profile.period)  # exact, unlike a sum of floats
        add = self.profile.sample.add
        for stack, label, count, weight in zip(
            used.ids[found.row].tolist(),
            labels.ids[found.row].tolist(),
            counts.tolist(),
            weights.tolist(),
            strict=True,
        ):
            sample = add()
            # a message is the sum of its parts: what many samples share was encoded once
            sample.MergeFromString(stacks[stack] + spelled[label])
            sample.value.extend((count, weight))

    def _labels(self, profile: Profile, row: int) -> bytes:
        values = {
            "mode": MODES[profile.mode[row]],
            "machine": profile.machine.categories[profile.machine.codes[row]],
            "vcpu": str(profile.vcpu[row]) if profile.vcpu[row] >= 0 else "",
            "comm": profile.comm.categories[profile.comm.codes[row]],
            "pid": str(profile.pid[row]),
            "tid": str(profile.tid[row]),
        }
        sample = self.kinds["Sample"]()
        for key, value in values.items():
            if value:
                sample.label.add(key=self.string(key), str=self.string(value))
        encoded: bytes = sample.SerializeToString()
        return encoded

    def _stacks(self, chains: Callchains) -> list[bytes]:
        """The encoded locations of every chain, leaf first; the guest's own frames of a guest."""
        counts = np.diff(chains.offsets)
        guest = np.isin(chains.mode, GUEST_CODES)
        in_guest = guest[chains.offsets[:-1]]
        kept = guest | ~np.repeat(in_guest, counts)
        owner = np.repeat(np.arange(len(chains)), counts)[kept]
        location = np.zeros(len(kept), np.int64)
        location[kept] = self._locations(chains, kept)
        rings = {mode: self._ring(name) for mode, name in RINGS.items()}
        bounds = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(chains)))])
        flat = location[kept].tolist()
        encoded = []
        sample = self.kinds["Sample"]()
        modes = chains.mode[chains.offsets[:-1]].tolist()
        for i, mode in enumerate(modes):
            sample.Clear()
            sample.location_id.extend(flat[bounds[i] : bounds[i + 1]])
            if mode in rings:
                sample.location_id.append(rings[mode])
            encoded.append(sample.SerializeToString())
        return encoded

    def _locations(self, chains: Callchains, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The ids of the locations of these frames; a location is one of address and frame."""
        symbol, dso = codes_of(chains.symbol)[kept], codes_of(chains.dso)[kept]
        mode, ip = chains.mode[kept], chains.ip[kept]
        frame = group_rows([symbol, dso, mode], len(symbol))
        mapping = group(dso.astype(np.int64))
        low = np.full(len(mapping), np.iinfo(np.uint64).max, np.uint64)
        high = np.zeros(len(mapping), np.uint64)
        np.minimum.at(low, mapping.ids, ip)
        np.maximum.at(high, mapping.ids, ip)
        for row, start, last in zip(mapping.row, low.tolist(), high.tolist(), strict=True):
            self.profile.mapping.add(
                id=len(self.profile.mapping) + 1,
                memory_start=start,
                memory_limit=min(last + 1, (1 << 64) - 1),
                filename=self.string(chains.dso.categories[dso[row]]),
                has_functions=True,
            )
        functions = [
            self._function(chains.symbol.categories[symbol[row]], chains.dso.categories[dso[row]])
            for row in frame.row.tolist()
        ]
        order = np.lexsort((ip, frame.ids))
        new = np.ones(len(order), np.bool_)
        new[1:] = (np.diff(frame.ids[order]) != 0) | (ip[order][1:] != ip[order][:-1])
        ids = np.empty(len(order), np.int64)
        ids[order] = np.cumsum(new) + len(self.profile.location)
        first = order[new]
        for number, address, function, where in zip(
            ids[first].tolist(),
            ip[first].tolist(),
            frame.ids[first].tolist(),
            mapping.ids[first].tolist(),
            strict=True,
        ):
            made = self.profile.location.add(id=number, mapping_id=where + 1, address=address)
            made.line.add(function_id=functions[function])
        return ids

    def _function(self, name: str, filename: str) -> int:
        number = len(self.profile.function) + 1
        self.profile.function.add(
            id=number,
            name=self.string(name),
            system_name=self.string(name),
            filename=self.string(filename),
        )
        return number

    def _ring(self, name: str) -> int:
        """The location of a label: it has no address and no mapping."""
        number = len(self.profile.location) + 1
        made: Any = self.profile.location.add(id=number)
        made.line.add(function_id=self._function(name, ""))
        return number
