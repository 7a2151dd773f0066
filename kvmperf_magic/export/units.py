"""What the periods of a profile count, as the formats name it."""

from __future__ import annotations

from dataclasses import dataclass

from kvmperf_magic.profile.profile import Profile


@dataclass(frozen=True)
class Unit:
    """The event's name and its unit: nanoseconds of a clock, or a plain count."""

    event: str
    name: str

    @property
    def is_time(self) -> bool:
        return self.name == "nanoseconds"


def unit_of(profile: Profile) -> Unit:
    """From `Profile.unit`: "cpu-clock ns" is the clock's nanoseconds, "cycles" a count."""
    event, space, kind = profile.unit.rpartition(" ")
    if space and kind == "ns":
        return Unit(event, "nanoseconds")
    return Unit(profile.unit or "events", "count")
