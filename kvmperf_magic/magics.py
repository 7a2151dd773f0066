"""The magics: read a line, call the Python face, hand back what it gives. No logic lives here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    line_magic,
    magics_class,
    output_can_be_silenced,
)
from IPython.core.magic_arguments import argument, magic_arguments

from kvmperf_magic import arguments as args
from kvmperf_magic.errors import KvmperfError
from kvmperf_magic.exporting import DIFF_FORMATS, SUFFIXES, format_of, suffixes_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from kvmperf_magic.diffview import DiffView
    from kvmperf_magic.inventory import MachineList
    from kvmperf_magic.live import Top
    from kvmperf_magic.recording import Recording
    from kvmperf_magic.reportview import ReportView


def readable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Our errors and Ctrl-C as the one readable line of a UsageError, the final `;` as silence."""

    @functools.wraps(function)
    def run(self: KvmMagics, line: str, *cell: str | None) -> Any:
        try:
            return function(self, line.rstrip().rstrip(";"), *cell)
        except KvmperfError as error:
            raise UsageError(str(error)) from None
        except KeyboardInterrupt:
            raise UsageError("interrupted") from None

    return output_can_be_silenced(run)


@magics_class
class KvmMagics(Magics):
    """%kvm_list %kvm_record %kvm_top %kvm_report %kvm_diff"""

    @readable
    @line_magic
    def kvm_list(self, line: str) -> MachineList:
        """The VMs here, their load, kernel, symbols and vCPU threads, and what stands in the way.

        %kvm_list
        """
        from kvmperf_magic.inventory import MachineList

        if line.strip():
            raise UsageError("%kvm_list takes no arguments")
        return MachineList.found()

    @readable
    @line_cell_magic
    @magic_arguments()
    @args.options(
        args.RECORD_OPTIONS,
        argument("-g", dest="callchain", action="store_true", help="host stacks, by frame pointer"),
        argument(
            "--call-graph",
            metavar="fp|dwarf[,BYTES]|lbr",
            help="host stacks: by frame pointer, by a copy of the user stack that is unwound "
            "later (8192 bytes), or by the processor's branch records",
        ),
        argument(
            "-o",
            "--output",
            metavar="FILE",
            help="perf.data.guest, .host or .kvm (both); "
            "NAME.kvmperf is packed with all symbols it needs",
        ),
        argument("--duration", type=float, metavar="SECONDS", help="default: until Ctrl-C"),
        argument("-q", "--quiet", action="store_true", help="no progress, no notices"),
        args.SYMBOL_OPTIONS,
    )
    def kvm_record(self, line: str, cell: str | None = None) -> Recording:
        """Sample guests, the host or both, into a perf.data; gives the recording.

        %kvm_record --guest --duration 10      all guests, 10 seconds -> perf.data.guest
        %kvm_record --host -g --duration 10    the host with call stacks -> perf.data.host
        %kvm_record --vm web1 -F 1000          one VM until Ctrl-C, which keeps the data
        %kvm_record --host -- make -j2         a command, as long as it runs
        %kvm_record --host --call-graph dwarf -- ./prog     stacks of code without frame pointers
        %%kvm_record --guest                   while this cell's code runs
        """
        from kvmperf_magic.recorder import Recorder

        line, command = args.split_command(line)
        given = args.parse(self.kvm_record, line)
        if cell is not None and (command or given.duration is not None):
            raise UsageError("a cell is recorded as long as it runs: no --duration, no command")
        say = (lambda _: None) if given.quiet else print
        recorder = Recorder(
            given.output,
            say,
            given.duration,
            command=command,
            system_wide=given.all_cpus,
            callchain=given.call_graph or given.callchain,
            **args.record_arguments(given),
        )
        with recorder:
            if cell is None:
                recorder.wait(progress=not given.quiet)
            else:
                assert self.shell is not None
                self.shell.run_cell(cell)
        return recorder.recording

    @readable
    @line_magic
    @magic_arguments()
    @args.options(
        args.RECORD_OPTIONS,
        args.TOP_OPTIONS,
        args.MODES_OPTION,
        argument("--duration", type=float, metavar="SECONDS", help="default: until stopped"),
        args.SYMBOL_OPTIONS,
    )
    def kvm_top(self, line: str) -> Top:
        """What guests and host do now. Other cells can run meanwhile; `.stop()` or its button ends.

        %kvm_top                        both sides, all VMs
        %kvm_top --guest -F 1000 -K     guests only, without their kernels
        %kvm_top -z -d 5 -s comm,dso    the last 5 seconds, a row a command and DSO
        t = %kvm_top                    t.filter = "lock"; t.machine = "web1"; t.sort = "samples"
                                        t.zero(), t.pause(), t.resume(), t.stop(), t.snapshot("f")
        """
        from kvmperf_magic.live import top

        given = args.parse(self.kvm_top, line)
        return top(
            duration=given.duration,
            modes=args.modes_argument(given),
            say=print,
            **args.top_arguments(given),
            **args.record_arguments(given),
        )

    @readable
    @line_magic
    @magic_arguments()
    @args.options(
        argument("recording", nargs="?", help="a file, or a variable that holds a recording"),
        argument("-i", "--input", metavar="FILE", help="the same, as perf spells it"),
        argument(
            "-s",
            "--sort",
            metavar="KEYS",
            default="comm,dso,symbol",
            help="of comm,pid,tid,cpu,dso,symbol,mode,machine,vcpu,event,srcline,guest_comm,"
            "guest_pid (default: %(default)s)",
        ),
        argument("--inline", action="store_true", help="what was inlined as frames of its own"),
        argument(
            "--children",
            dest="no_children",
            action="store_false",
            default=False,
            help="sort by what callees add, too (the default)",
        ),
        argument("--no-children", action="store_true", help="sort by self, not with children"),
        argument("--percent-limit", type=float, default=0.0, metavar="PERCENT", help="hide below"),
        argument(
            "--heatmap",
            nargs="?",
            const=True,
            default=False,
            metavar="SYMBOL",
            help="when samples fell, or this symbol's share, a name or /regex/: a range dragged "
            "over it is what the rest shows",
        ),
        args.export_option(SUFFIXES),
        args.FILTER_OPTIONS,
        args.SYMBOL_OPTIONS,
        args.CACHE_OPTION,
    )
    def kvm_report(self, line: str) -> ReportView:
        """What the time went to: a table and a flame graph, in notebooks a dashboard of them.

        %kvm_report                             the newest recording of this folder
        %kvm_report perf.data.guest
        %kvm_report web1.kvmperf                what rec.save() wrote, here or elsewhere
        %kvm_report rec --modes guest --sort symbol
        %kvm_report rec --heatmap               and when, by second and the offset within it
        p = %kvm_report perf.data.guest         p.table, p.flamegraph.search("lock"), p.filter
        %kvm_report --export web1.pb.gz         for pprof; the suffix says the format
        """
        given = args.parse(self.kvm_report, line)
        if given.export:
            format_of(given.export)  # a name that says nothing is told before the work
        recording = self._recording(given.recording or given.input, args.opening_arguments(given))
        report = recording.filter(**args.filter_arguments(given)).report(
            sort=given.sort,
            modes=args.modes_argument(given),
            event=given.event,
            heatmap=given.heatmap,
            inline=given.inline,
            order="self" if given.no_children else "children",
            percent_limit=given.percent_limit,
        )
        if given.export:
            report.export(given.export)
        return report

    @readable
    @line_magic
    @magic_arguments()
    @args.options(
        argument("baseline", nargs="?", help="file or variable (default: perf.data.host)"),
        argument("other", nargs="?", help="file or variable (default: perf.data.guest)"),
        argument(
            "-s",
            "--sort",
            metavar="KEYS",
            default="auto",
            help="what is paired: symbol, dso,symbol ...",
        ),
        argument(
            "-c",
            "--compute",
            default="delta-abs",
            metavar="HOW",
            help="delta, delta-abs, ratio or wdiff:W1,W2 (default: %(default)s)",
        ),
        argument(
            "--total",
            choices=["all", "kernel", "mode"],
            default="all",
            help="what 100%% of a side is (default: %(default)s)",
        ),
        argument("--confidence", type=float, default=0.95, help="of the intervals (%(default)s)"),
        argument(
            "--width",
            choices=["after", "before", "max", "common"],
            default="after",
            help="of the flame graph's frames (default: %(default)s)",
        ),
        args.export_option(suffixes_of(DIFF_FORMATS)),
        args.FILTER_OPTIONS,
        args.SYMBOL_OPTIONS,
        args.CACHE_OPTION,
    )
    def kvm_diff(self, line: str) -> DiffView:
        """Host against guest, or before against after: delta bars, flame graph, table.

        %kvm_diff                          perf.data.host -> perf.data.guest
        %kvm_diff before.data after.data   any two
        %kvm_diff perf.data.kvm            the host side of one recording against its guest side
        """
        from kvmperf_magic.comparison import diff

        given = args.parse(self.kvm_diff, line)
        if given.export:
            format_of(given.export, DIFF_FORMATS)
        opening = args.opening_arguments(given)
        sides = [
            None if one is None else self._recording(one, opening)
            for one in (given.baseline, given.other)
        ]
        answer = diff(
            *sides,
            modes=args.modes_argument(given),
            event=given.event,
            filters=args.filter_arguments(given),
            symbol_options=opening,
            pair=given.sort,
            compute=given.compute,
            total=given.total,
            confidence=given.confidence,
            width=given.width,
        )
        if given.export:
            answer.export(given.export)
        return answer

    def _recording(self, name: str | None, opening: dict[str, Any]) -> Recording:
        """The recording of a variable or a file."""
        from kvmperf_magic.recording import Recording, newest, open_recording

        assert self.shell is not None
        held = self.shell.user_ns.get(name) if name else None
        held = getattr(held, "recording", held)  # a report is as good
        if isinstance(held, Recording):
            return held.with_symbols(**opening) if opening else held
        return open_recording(name or newest(), **opening)


def load(shell: InteractiveShell) -> None:
    """Register the magics and what completes their lines."""
    from kvmperf_magic import completion

    shell.register_magics(KvmMagics)
    completion.load(shell, KvmMagics)


def unload(shell: InteractiveShell) -> None:
    """Undo `load()`; live views stop."""
    import sys

    from kvmperf_magic import completion

    if live := sys.modules.get("kvmperf_magic.live"):
        live.stop_all()
    completion.unload(shell)
    for kind in ("line", "cell"):
        for name in KvmMagics.magics[kind]:
            shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(KvmMagics.__name__, None)
