"""A machine whose code samples can come from: the host, or one guest."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from kvmperf_magic.blob import text

if TYPE_CHECKING:
    from kvmperf_magic.symbols.guestsymbols import GuestSymbols
    from kvmperf_magic.table import Table

KALLSYMS = "/proc/kallsyms"

# QEMU; Firecracker; cloud-hypervisor and crosvm; kvmtool
_VCPU_NAMES = re.compile(
    r"CPU (\d{1,6})/(?:KVM|TCG)|fc_vcpu ?(\d{1,6})|(?:crosvm_)?vcpu[-_ ]?(\d{1,6})"
    r"|kvm-vcpu-(\d{1,6})"
)


@dataclass
class Vcpu:
    """One vCPU: its number in the guest and the host thread that runs it.

    `tid` is 0 while that is not known: the threads have plain names and may not be looked into.
    """

    id: int
    tid: int
    name: str = ""


@dataclass
class Machine:
    """The host (pid 0) or a guest (pid of its VMM, the process that samples of it belong to).

    `vmm` is "qemu", "firecracker", "cloud-hypervisor", "crosvm", "kvmtool", or the program's own
    name; `accel` is "kvm", "tcg" or "". `memory` is in bytes, None where it cannot be told.
    `notes` say in words what stands in the way of sampling it.
    """

    pid: int
    name: str
    kind: str = "guest"
    vmm: str = ""
    accel: str = ""
    memory: int | None = None
    vcpus: list[Vcpu] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def symbols_source(self) -> str:
        """Where `symbols()` has them from; "none: " and why where it has none."""
        if self.kind == "host":
            return KALLSYMS
        found = self._found()
        return found.source or f"none: {found.note}"

    def symbols(self) -> Table:
        """What is known of this machine's kernel now: address size type name module, by address.

        A guest's are read from its memory, its modules' among them; no rows where that cannot be
        done, `symbols_source` then says why. SymbolError where the host hides its own.
        """
        import numpy as np

        from kvmperf_magic.symbols.kallsyms import parse
        from kvmperf_magic.table import Categorical, Table

        if self.kind == "host":
            return parse(KALLSYMS).table()
        found = self._found().table
        if found is not None:
            return found.table()
        none = Categorical.constant("", 0)
        addresses = np.zeros(0, np.uint64)
        return Table(
            {"address": addresses, "size": addresses, "type": none, "name": none, "module": none}
        )

    def _found(self) -> GuestSymbols:
        """What its memory tells now."""
        from kvmperf_magic.guests.discovery import is_here
        from kvmperf_magic.guests.watch import watch
        from kvmperf_magic.progress import share
        from kvmperf_magic.symbols.guestsymbols import GuestSymbols

        if not is_here(self):
            return GuestSymbols(self.pid, self.name, note="it does not run here")
        watched = watch(self)
        with share(f"searching the memory of {self.name}") as tell:
            watched.refresh(tell)
        return watched.symbols

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`; fields of a newer version are passed over.

        Raises:
            ValueError: it is none of a machine.
        """
        try:
            memory = value.get("memory")
            return cls(
                _whole(value["pid"]),
                text(value["name"]),
                text(value.get("kind", "guest")),
                text(value.get("vmm", "")),
                text(value.get("accel", "")),
                None if memory is None else _whole(memory, 64),
                [
                    Vcpu(_whole(one["id"]), _whole(one["tid"]), text(one["name"]))
                    for one in value.get("vcpus", [])
                ],
                [text(note) for note in value.get("notes", [])],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no machine: {error!r}") from None


def _whole(value: Any, bits: int = 31) -> int:
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise TypeError(f"{value!r} is no number of so many bits: {bits}")
    return value


def vcpu_number(name: str) -> int | None:
    """The vCPU that a thread's name tells, in any VMM's spelling; None where it tells none."""
    found = _VCPU_NAMES.fullmatch(name)
    return None if found is None else int(next(filter(None, found.groups())))
