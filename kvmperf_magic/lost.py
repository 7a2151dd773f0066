"""How complete a recording is."""

from __future__ import annotations

from dataclasses import dataclass

from kvmperf_magic.perfdata.reader import Damage


@dataclass(frozen=True)
class Lost:
    """How complete a recording is."""

    records: int  # records the kernel could not write: the ring was full
    samples: int  # samples among LOST_SAMPLES records
    throttled: int  # times the kernel stopped an event that fired too often
    damage: list[Damage]  # where the file is damaged, and what was lost there
    received: int  # samples that are here

    @property
    def complete(self) -> float:
        """The share of all samples known of that are here, 0 to 1."""
        known = self.received + self.records + self.samples
        return self.received / known if known else 1.0

    def __str__(self) -> str:
        said = [f"{100 * self.complete:.2f} % complete"]
        if self.records or self.samples:
            said.append(f"{self.records + self.samples:,} lost")
        if self.throttled:
            said.append(f"throttled {self.throttled:,} times")
        said += [f"damaged at {d.offset:#x}: {d.message}" for d in self.damage]
        return ", ".join(said)
