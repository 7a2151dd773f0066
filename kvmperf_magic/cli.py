"""The command line: the magics as commands of a terminal, and the demo.

    python -m kvmperf_magic list
    python -m kvmperf_magic record --guest --duration 10
    python -m kvmperf_magic report perf.data.guest
    python -m kvmperf_magic diff
    python -m kvmperf_magic top
    python -m kvmperf_magic demo --output demo-output

Every command but `demo` takes the options of the magic of that name: see `COMMAND --help`.
"""

from __future__ import annotations

import argparse
import io
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kvmperf_magic import __version__
from kvmperf_magic.errors import KvmperfError
from kvmperf_magic.frontend import write_nowhere

_MAGICS = ("list", "record", "top", "report", "diff")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: 0 if it worked, else one line on stderr and 2 (the demo: 1)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale that lacks a sign is no reason to end
            stream.reconfigure(errors="replace")
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        write_nowhere()
        return 128 + signal.SIGPIPE
    return status


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="kvmperf",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=True,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=[*_MAGICS, "demo"])
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="as the magic takes them")
    if not words:
        parser.print_help(sys.stderr)
        return 2
    given = parser.parse_args(words)
    try:
        if given.command == "demo":
            return _demo(given.arguments)
        return _magic(f"kvm_{given.command}", given.arguments)
    except KvmperfError as error:
        print(f"kvmperf: {error}", file=sys.stderr)
        return 1


def _magic(name: str, arguments: list[str]) -> int:
    """Run a magic as a terminal's IPython would, and print what it gives."""
    from IPython.core.error import UsageError
    from IPython.core.interactiveshell import InteractiveShell

    from kvmperf_magic.magics import KvmMagics, load, unload

    if arguments[:1] in (["-h"], ["--help"]):
        print(getattr(KvmMagics, name).__doc__.replace("usage: kvm_", "usage: kvmperf ", 1))
        return 0
    shell = InteractiveShell.instance()
    load(shell)
    try:
        # not run_line_magic(): that would put variables where a command has $ or braces
        result = getattr(shell.magics_manager.registry[KvmMagics.__name__], name)(
            shlex.join(arguments)
        )
    except UsageError as error:
        print(f"kvmperf: {error}", file=sys.stderr)
        return 2
    watch = getattr(result, "watch", None)
    if watch is not None:  # a live view
        watch()
    elif result is not None:
        print(result)
    unload(shell)
    return 0


def _demo(arguments: list[str]) -> int:
    from kvmperf_magic.demo.notebook import run

    parser = argparse.ArgumentParser(
        prog="kvmperf demo",
        description="Record a real guest and the host (or replay the bundled recordings), and "
        "write the executed notebook and its page.",
    )
    parser.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIR")
    return run(parser.parse_args(arguments).output)
