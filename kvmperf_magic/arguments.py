"""The magics' options, spelled as perf spells them, and the keyword arguments they stand for.

Both the magics and the command line are parsed by these.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, kwds
from IPython.utils.process import arg_split  # type: ignore[attr-defined]  # IPython names it nowhere else

from kvmperf_magic.errors import QueryError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_MOST_NUMBERS = 1 << 22  # PID_MAX_LIMIT of 64-bit kernels
_QUOTED = re.compile(r"^(--[\w-]+=|)([\"'])(.*)\2$", re.DOTALL)


def parse(magic: Any, line: str) -> argparse.Namespace:
    """The arguments of a magic's line. IPython leaves the quotes around a word, and a backslash,
    which a regular expression needs, alone."""
    try:
        words = [_QUOTED.sub(r"\1\3", word) for word in arg_split(line)]
    except ValueError as error:
        raise UsageError(f"{error}: a quotation mark stands alone") from None
    try:
        given: argparse.Namespace = magic.parser.parse_args(words)
    except UsageError as error:
        if not str(error).startswith("unrecognized"):
            raise
        name = magic.parser.prog.removeprefix("%")
        stray = next((word for word in words if word in str(error)), "")
        command = ""
        if name == "kvm_record" and not stray.startswith("-"):
            command = "a command stands behind --; "
        raise UsageError(f"{error} ({command}%{name}? lists what there is)") from None
    return given


def hertz(text: str) -> int | str:
    return text if text == "max" else int(text)


SYMBOL_OPTIONS = (
    argument("--kallsyms", metavar="FILE", help="host kernel symbols from this kallsyms"),
    argument("--vmlinux", "-k", metavar="FILE", help="host kernel symbols from this vmlinux"),
    argument("--symfs", metavar="DIR", help="look for binaries below this folder"),
    argument(
        "--guest-kallsyms", "--guestkallsyms", metavar="FILE", help="the guest's /proc/kallsyms"
    ),
    argument("--guest-modules", "--guestmodules", metavar="FILE", help="the guest's /proc/modules"),
    argument("--guest-vmlinux", "--guestvmlinux", metavar="FILE", help="the guest's vmlinux"),
    argument(
        "--guest-mount",
        "--guestmount",
        metavar="DIR",
        help="guests' root folders, one below DIR for each VM, named by the VMM's pid",
    ),
    argument(
        "--guest-elf",
        metavar="[VM=]FILE",
        action="append",
        help="the program that a guest runs; VM= says which guest's, may be given again",
    ),
    argument(
        "--guest-symbols",
        choices=["host", "none"],
        help="host: the guests run the host's kernel image; none: their memory is not looked into",
    ),
    argument(
        "--debuginfod",
        nargs="?",
        const=True,
        metavar="URL",
        help="ask servers for symbols that are not here: URL, else those of DEBUGINFOD_URLS; they "
        "learn the build-ids of what ran (default: no)",
    ),
    argument(
        "--no-unwind",
        dest="unwind",
        action="store_false",
        help="leave copied user stacks alone: only the interrupted address is shown of them",
    ),
)

CACHE_OPTION = argument(
    "--no-cache",
    dest="cache",
    action="store_false",
    help="decode it again, and keep nothing beside the file",
)

RECORD_OPTIONS = (
    argument("--guest", action="store_true", help="record guests (what is done by default)"),
    argument("--host", action="store_true", help="record the host; with --guest, both"),
    argument(
        "-e",
        "--event",
        dest="events",
        action="append",
        metavar="EVENT",
        help="as perf names them: cycles, cpu-clock, cache-misses:G, r01c2, cpu/event=0x3c/, "
        "kvm:kvm_exit; may be given again (default: cycles, where there is none cpu-clock)",
    ),
    argument(
        "-F",
        "--freq",
        dest="frequency",
        type=hertz,
        metavar="HZ",
        help="or max: what the kernel allows (default: 4000)",
    ),
    argument("-c", "--count", dest="period", type=int, metavar="N", help="a sample every N events"),
    argument("-a", "--all-cpus", action="store_true", help="the whole machine (the default)"),
    argument("-C", "--cpu", dest="cpus", metavar="LIST", help="only these CPUs, as 0,2-5"),
    argument("-p", "--pid", metavar="LIST", help="only these processes and their children"),
    argument("-t", "--tid", metavar="LIST", help="only these threads"),
    argument("--vm", action="append", metavar="NAME|PID", help="only this VM; may be given again"),
    argument(
        "-m",
        "--mmap-pages",
        default="128",
        metavar="N",
        help="ring size in pages, or as 16M (default: %(default)s)",
    ),
)

MODES_OPTION = argument(
    "--modes",
    metavar="LIST",
    help="host, guest, or of host-kernel,host-user,hypervisor,guest-kernel,guest-user",
)

TOP_OPTIONS = (
    argument("-d", "--delay", type=float, default=1.0, metavar="SECONDS", help="refresh"),
    argument(
        "-s",
        "--sort",
        dest="keys",
        metavar="KEYS",
        help="what rows are by, of comm,pid,tid,cpu,dso,symbol,mode,machine,vcpu,event,"
        "guest_comm,guest_pid (default: symbol,dso,mode,machine)",
    ),
    argument("--order", default="overhead", metavar="COLUMN", help="sort by it; -COLUMN: upwards"),
    argument(
        "--filter",
        default="",
        metavar="REGEX",
        help="only these symbols, DSOs or commands",
    ),
    argument("-E", "--entries", type=int, default=20, metavar="N", help="rows to show"),
    argument(
        "-f", "--count-filter", type=int, metavar="N", help="only rows of more samples than this"
    ),
    argument(
        "--decay",
        dest="decay",
        action="store_true",
        default=True,
        help="each refresh counts 7/8 of what was there (the default)",
    ),
    argument("-z", "--zero", dest="decay", action="store_false", help="count anew in each refresh"),
    argument(
        "-K",
        "--hide-kernel",
        "--hide_kernel_symbols",
        action="store_true",
        help="no kernel symbols, of host and guests",
    ),
    argument(
        "-U",
        "--hide-user",
        "--hide_user_symbols",
        action="store_true",
        help="no user symbols, of host and guests",
    ),
)

FILTER_OPTIONS = (
    MODES_OPTION,
    argument("--comm", "--comms", metavar="REGEX", help="only these commands"),
    argument("-d", "--dso", "--dsos", metavar="REGEX", help="only these DSOs"),
    argument("-S", "--symbol", "--symbols", metavar="REGEX", help="only these symbols"),
    argument("--vm", metavar="NAME|PID", help="only the guest code of this VM"),
    argument("-C", "--cpu", metavar="LIST", help="only these CPUs"),
    argument("--pid", metavar="LIST", help="only these processes"),
    argument("--tid", metavar="LIST", help="only these threads"),
    argument("--vcpu", metavar="LIST", help="only these vCPUs"),
    argument("--guest-comm", metavar="REGEX", help="only these commands within guests"),
    argument("--guest-pid", metavar="LIST", help="only these processes within guests"),
    argument("--time", metavar="FROM,UNTIL", help="seconds since the start; one may be left out"),
    argument("-e", "--event", metavar="EVENT", help="the event to show, of several"),
)


def export_option(suffixes: Iterable[str]) -> Any:
    """`--export`, of the formats that these suffixes of a file stand for."""
    known = " ".join(sorted(suffixes))
    return argument(
        "--export", metavar="FILE", help=f"write it too; the format is the suffix: {known}"
    )


def options(*groups: Callable[..., Any] | tuple[Any, ...]) -> Decorator:
    """One decorator out of many `argument`s, shown in the order they are given."""
    # a help text keeps its lines: examples one a line
    flat = [kwds(formatter_class=argparse.RawDescriptionHelpFormatter)]
    flat += [one for group in groups for one in (group if isinstance(group, tuple) else (group,))]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(flat):
            function = one(function)
        return function

    return decorate


def split_command(line: str) -> tuple[str, list[str] | None]:
    """The options of a line and what stands behind a lone `--`, None where there is none."""
    words = line.split()
    if "--" not in words:
        return line, None
    head, _, tail = f" {line} ".partition(" -- ")
    try:
        command = shlex.split(tail)
    except ValueError as error:
        raise UsageError(f"behind --: {error}") from None
    if not command:
        raise UsageError("behind -- stands no command")
    return head.strip(), command


def numbers(text: str) -> list[int]:
    """`0,2-5` -> [0, 2, 3, 4, 5]."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise QueryError(f"{text!r} is no list of numbers", "as 0,2-5")
        span = range(int(first), int(last if dash else first) + 1)
        if not 0 < len(span) <= _MOST_NUMBERS - len(found):
            raise QueryError(
                f"{part.strip()} in {text!r} is no range of numbers",
                f"as 2-5, up to {_MOST_NUMBERS:,} of them",
            )
        found.extend(span)
    return found


def opening_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `open()` that were given."""
    return symbol_arguments(given) | ({} if given.cache else {"cache": False})


def symbol_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """The symbol options that were given."""
    found = {
        name: getattr(given, name)
        for name in (
            "kallsyms",
            "vmlinux",
            "symfs",
            "guest_kallsyms",
            "guest_modules",
            "guest_vmlinux",
            "guest_mount",
            "guest_symbols",
            "debuginfod",
        )
        if getattr(given, name)
    }
    if not given.unwind:
        found["unwind"] = False
    if given.guest_elf:
        plain = [one for one in given.guest_elf if "=" not in one]
        if plain:
            if len(given.guest_elf) > 1:
                raise QueryError(
                    "several --guest-elf, and one names no VM", "as --guest-elf VM=FILE"
                )
            found["guest_elf"] = plain[0]
        else:
            found["guest_elf"] = dict(one.split("=", 1) for one in given.guest_elf)
    return found


def record_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """What record() and top() both take."""
    found: dict[str, Any] = {
        "guest": True if given.guest else None,
        "host": True if given.host else None,
        "events": given.events,
        "frequency": given.frequency,
        "period": given.period,
        "mmap_pages": given.mmap_pages,
        **symbol_arguments(given),
    }
    for name in ("cpus", "pid", "tid"):
        text = getattr(given, name)
        found[name] = numbers(text) if text else None
    found["vm"] = given.vm
    if given.all_cpus and (found["pid"] or found["tid"] or found["vm"]):
        raise QueryError("--all-cpus and a target exclude each other", "leave one of them out")
    return found


def top_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """What only top() takes."""
    names = ("delay", "keys", "filter", "entries", "count_filter", "decay", "hide_kernel")
    return {"sort": given.order, "hide_user": given.hide_user} | {
        name: getattr(given, name) for name in names
    }


def filter_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """What Recording.filter() takes; `modes` and the event are the answer's own affair."""
    found: dict[str, Any] = {
        "comm": given.comm,
        "dso": given.dso,
        "symbol": given.symbol,
        "vm": given.vm,
        "guest_comm": given.guest_comm,
    }
    for name, text in (
        ("cpu", given.cpu),
        ("pid", given.pid),
        ("tid", given.tid),
        ("vcpu", given.vcpu),
        ("guest_pid", given.guest_pid),
    ):
        found[name] = numbers(text) if text else None
    if given.time:
        start, _, end = given.time.partition(",")
        try:
            found["time"] = tuple(float(at) if at.strip() else None for at in (start, end))
        except ValueError:
            raise QueryError(f"--time {given.time}: not FROM,UNTIL in seconds") from None
    return {name: value for name, value in found.items() if value is not None}


def modes_argument(given: argparse.Namespace) -> list[str] | None:
    return given.modes.split(",") if given.modes else None
