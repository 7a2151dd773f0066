"""The small text files of /proc and /sys."""

from __future__ import annotations

from pathlib import Path

PMUS = Path("/sys/bus/event_source/devices")


def read_text(path: str | Path) -> str | None:
    """What the file holds, stripped; None where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


def read_int(path: str | Path) -> int | None:
    try:
        return int(read_text(path) or "", 0)
    except ValueError:
        return None


def parse_cpu_list(text: str) -> list[int]:
    """`0-2,5` as the kernel prints CPU lists. Raises ValueError."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def online_cpus() -> list[int]:
    return parse_cpu_list(read_text("/sys/devices/system/cpu/online") or "0")


def pmu_types() -> dict[str, int]:
    """PMU name to the attr.type the kernel gave it."""
    if not PMUS.is_dir():
        return {}
    types = {pmu.name: read_int(pmu / "type") for pmu in sorted(PMUS.iterdir())}
    return {name: type for name, type in types.items() if type is not None}
