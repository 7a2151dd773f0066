"""The events that perf knows by name (tools/perf/util/parse-events.c, evsel.c), and sysfs's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kvmperf_magic.errors import EventError, NotPermittedError
from kvmperf_magic.perfdata.abi import EventType
from kvmperf_magic.perfdata.generic_events import (
    CACHES,
    HARDWARE,
    OPERATIONS,
    RESULTS,
    SOFTWARE,
)
from kvmperf_magic.sampler.sysfs import PMUS, pmu_types, read_int, read_text

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


@dataclass(frozen=True)
class Code:
    """What of a perf_event_attr a name stands for."""

    type: int
    config: int = 0
    config1: int = 0
    config2: int = 0
    terms: dict[str, str] = field(default_factory=dict)  # period, freq, name: not of the PMU


def _find(tables: tuple[tuple[str, ...], ...], name: str) -> int | None:
    for code, spellings in enumerate(tables):
        if name.lower() in (s.lower() for s in spellings):
            return code
    return None


def symbolic(name: str) -> Code | None:
    """A hardware, software or cache event of the kernel's generic lists."""
    for type, table in ((EventType.HARDWARE, HARDWARE), (EventType.SOFTWARE, SOFTWARE)):
        code = _find(table, name)
        if code is not None:
            return Code(type, code)
    return _cache(name)


def _cache(name: str) -> Code | None:
    """`L1-dcache-load-misses`: a cache, then an operation and a result in any order."""
    spellings = [
        s for names in CACHES for s in names if f"{name}-".lower().startswith(f"{s}-".lower())
    ]
    if not spellings:
        return None
    spelling = max(spellings, key=len)
    cache = next(c for c, names in enumerate(CACHES) if spelling in names)
    operation = result = None
    rest = name[len(spelling) + 1 :]
    while rest:
        for table in (OPERATIONS, RESULTS):
            for end in range(len(rest), 0, -1):
                code = _find(table, rest[:end])
                if code is not None and rest[end : end + 1] in {"", "-"}:
                    break
            else:
                continue
            if table is OPERATIONS and operation is None:
                operation = code
            elif table is RESULTS and result is None:
                result = code
            else:
                return None
            rest = rest[end + 1 :]
            break
        else:
            return None
    return Code(EventType.HW_CACHE, cache | (operation or 0) << 8 | (result or 0) << 16)


def raw(name: str) -> Code | None:
    """`r01c2`: hexadecimal digits after an r."""
    digits = name[1:]
    if not name.startswith("r") or not digits or set(digits.lower()) - set("0123456789abcdef"):
        return None
    return Code(EventType.RAW, int(digits, 16))


def _place(value: int, ranges: str) -> tuple[str, int]:
    """Spread a value over the bits that sysfs's format names, e.g. `config:0-7,32-35`."""
    register, _, bits = ranges.partition(":")
    placed = shift = 0
    for part in bits.split(","):
        low, _, high = part.partition("-")
        width = int(high or low) - int(low) + 1
        placed |= (value >> shift & (1 << width) - 1) << int(low)
        shift += width
    if value >> shift:
        raise ValueError(f"{value:#x} has more than {shift} bits")
    return register, placed


def pmu(name: str, terms: str) -> Code:
    """`cpu/event=0x3c,umask=1/`: terms by the PMU's format/ files, or one of its events/."""
    folder = PMUS / name
    type = read_int(folder / "type")
    if type is None:
        known = ", ".join(pmu_types()) or "none"
        raise EventError(f"no PMU {name!r} on this machine", f"PMUs here: {known}")
    configs = {"config": 0, "config1": 0, "config2": 0}
    own: dict[str, str] = {}
    for term in filter(None, (t.strip() for t in terms.split(","))):
        key, given, value = term.partition("=")
        alias = read_text(folder / "events" / key) if not given else None
        if alias is not None:
            inner = pmu(name, alias)
            configs["config"] |= inner.config
            configs["config1"] |= inner.config1
            configs["config2"] |= inner.config2
        elif key in {"period", "freq", "name"}:
            own[key] = value
        else:
            _set_term(folder, configs, key, value if given else "1")
    return Code(type, configs["config"], configs["config1"], configs["config2"], own)


def _set_term(folder: Path, configs: dict[str, int], key: str, value: str) -> None:
    ranges = f"{key}:0-63" if key in configs else read_text(folder / "format" / key)
    if ranges is None or value == "?":
        formats = (p.name for p in (folder / "format").glob("*"))
        events = (p.name for p in (folder / "events").glob("*"))
        raise EventError(
            f"PMU {folder.name!r} has no term or event {key!r}"
            if ranges is None
            else f"PMU {folder.name!r} wants a value for {key!r}",
            f"terms: {', '.join(sorted(formats)) or 'none'}; "
            f"events: {', '.join(sorted(events)) or 'none'}",
        )
    try:
        register, placed = _place(int(value, 0), ranges)
    except ValueError as error:
        raise EventError(f"{folder.name}/{key}={value}/: {error}", f"format {ranges}") from None
    configs[register] = configs.get(register, 0) | placed


def pmu_alias(name: str) -> Code | None:
    """A bare name that some PMU's events/ folder holds."""
    for pmu_name in pmu_types():
        if (PMUS / pmu_name / "events" / name).is_file():
            return pmu(pmu_name, name)
    return None


def tracefs() -> Path:
    """Where tracefs's events/ is. Raises NotPermittedError or EventError saying what to do."""
    for folder in TRACEFS:
        try:
            if (folder / "events").is_dir():
                return folder
        except PermissionError:
            continue
    if TRACEFS[0].is_dir() and not _readable(TRACEFS[0]):
        raise NotPermittedError(
            f"{TRACEFS[0]} is not readable for this user, so tracepoints cannot be looked up",
            "run as root, or: sudo mount -o remount,mode=755 /sys/kernel/tracing",
        )
    raise EventError(
        "tracefs is not mounted, so tracepoints cannot be looked up",
        "sudo mount -t tracefs nodev /sys/kernel/tracing",
    )


def _readable(folder: Path) -> bool:
    try:
        next(folder.iterdir(), None)
    except PermissionError:
        return False
    return True


def tracepoints(system: str, pattern: str) -> list[tuple[str, Code]]:
    """The tracepoints `system:pattern` names (perf's * and ? in both), with their ids."""
    events = tracefs() / "events"
    found: list[tuple[str, Code]] = []
    for path in sorted(events.glob(f"{system}/{pattern}/id")):
        try:
            id = int(path.read_text())
        except PermissionError:
            raise NotPermittedError(
                f"{path} is not readable for this user",
                "run as root, or: sudo mount -o remount,mode=755 /sys/kernel/tracing",
            ) from None
        name = f"{path.parent.parent.name}:{path.parent.name}"
        found.append((name, Code(EventType.TRACEPOINT, id)))
    if not found:
        known = sorted(p.name for p in events.glob(f"{system}/*") if p.is_dir())
        hint = (
            f"{system} has {', '.join(known[:12])}{' ...' if len(known) > 12 else ''}"
            if known
            else f"{events} has no {system!r}: is its module loaded (e.g. modprobe kvm)?"
        )
        raise EventError(f"no tracepoint {system}:{pattern} in the running kernel", hint)
    return found


def list_events() -> list[str]:
    """Every name that could be asked for here, for completion."""
    names = [names[0] for table in (HARDWARE, SOFTWARE) for names in table]
    for cache in CACHES:
        for operation in OPERATIONS:
            names.append(f"{cache[0]}-{operation[0]}")
            names.append(f"{cache[0]}-{operation[1]}-misses")
    for pmu_name in pmu_types():
        aliases = sorted((PMUS / pmu_name / "events").glob("*"))
        names += [f"{pmu_name}/{a.name}/" for a in aliases if "." not in a.name]
    try:
        events = tracefs() / "events"
    except (EventError, NotPermittedError):
        return names
    return names + sorted(f"{p.parent.parent.name}:{p.parent.name}" for p in events.glob("*/*/id"))
