"""The magics in a real shell: results, silence, errors, help, completion, loading and unloading."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from guest import running_guest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import kvmperf_magic as kvm
from kvmperf_magic import demo
from kvmperf_magic.cli import main
from kvmperf_magic.diffview import DiffView
from kvmperf_magic.guests.machine import Machine
from kvmperf_magic.guests.survey import Facts
from kvmperf_magic.inventory import MachineList
from kvmperf_magic.recording import Recording
from kvmperf_magic.reportview import ReportView

_LOAD = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "kvmperf_magic")
heavy = {"plotly", "ipywidgets", "rich", "pandas", "polars", "pyarrow", "numpy", "elftools"}
print(sorted(heavy & set(sys.modules)))
"""


def test_loading_imports_nothing_heavy_and_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""


def test_unloading_leaves_nothing_behind() -> None:
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.find_line_magic("load_ext")  # IPython registers it when it is first wanted
    try:

        def state() -> tuple[object, ...]:
            magics = shell.magics_manager.magics
            return (
                {kind: sorted(names) for kind, names in magics.items()},
                list(shell.Completer.custom_matchers),
                {kind: len(found) for kind, found in shell.events.callbacks.items()},
                sorted(shell.magics_manager.registry),
                sorted(thread.name for thread in threading.enumerate()),
            )

        before = state()
        shell.run_line_magic("load_ext", "kvmperf_magic")
        assert state() != before
        shell.run_line_magic("unload_ext", "kvmperf_magic")
        assert state() == before
        shell.run_line_magic("load_ext", "kvmperf_magic")
        assert shell.find_line_magic("kvm_report") is not None
        shell.run_line_magic("unload_ext", "kvmperf_magic")
    finally:
        InteractiveShell.clear_instance()


@pytest.mark.kvm
@pytest.mark.alone
@pytest.mark.root
def test_the_five_magics_tell_the_story(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_guest(1, "story"):  # two may do nothing but wait for each other
        listed = shell.run_line_magic("kvm_list", "")
        elf = f"--guest-elf {demo.guest_elf()}"
        shell.run_cell(f"g = %kvm_record --guest --vm story -F 500 --duration 1 -q {elf}")
        shell.run_cell(
            f"%%kvm_record --guest -F 500 {elf} -o cell.data\nimport time; time.sleep(0.6)"
        )
    with demo.HostBaseline(threads=1) as program:
        shell.run_cell(f"h = %kvm_record --host --pid {program.pid} -F 500 --duration 1 -q")
    assert isinstance(listed, MachineList)
    assert "story" in repr(listed)
    guest, host = shell.user_ns["g"], shell.user_ns["h"]
    assert isinstance(guest, Recording)
    assert isinstance(host, Recording)
    assert Path("perf.data.guest").exists()
    assert Path("perf.data.host").exists()
    assert "cell.data" in capsys.readouterr().out

    report = shell.run_line_magic("kvm_report", "g --sort symbol")
    assert isinstance(report, ReportView)
    assert "ext3_test_allocatable" in repr(report)
    # the recording remembers the file that was named
    again = shell.run_line_magic("kvm_report", "perf.data.guest -s sym")
    assert set(report.table["symbol"]) == set(again.table["symbol"])
    diff = shell.run_line_magic("kvm_diff", "")
    assert isinstance(diff, DiffView)
    assert diff.diff.names == ("host", "guest")
    assert "ext3_test_allocatable" in set(diff.table["symbol"])
    few = shell.run_line_magic("kvm_diff", "h g -S ext3 -c ratio")
    assert all("ext3" in name for name in few.table["symbol"])


@pytest.mark.root
def test_a_command_is_recorded_as_long_as_it_runs(
    shell: InteractiveShell, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "i = 0\nwhile i < 3000000: i += 1\nprint('said by the command')"
    recording = shell.run_line_magic("kvm_record", f'--host -q -- {sys.executable} -c "{code}"')
    assert "said by the command" in capfd.readouterr().out
    assert len(recording) > 50
    assert len(set(recording.samples["pid"].tolist())) == 1


@pytest.mark.root
def test_a_semicolon_silences_and_an_assignment_keeps(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%kvm_record --host --duration 0.2 -q;")
    assert capsys.readouterr().out == ""
    shell.run_cell("%kvm_report;")
    assert capsys.readouterr().out == ""
    shell.run_cell("p = %kvm_report")
    assert capsys.readouterr().out == ""
    assert isinstance(shell.user_ns["p"], ReportView)
    shell.run_cell("%kvm_report --sort comm --modes host")
    assert "children_overhead" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("magic", "line", "words"),
    [
        ("kvm_report", "nowhere.data", ["nowhere.data"]),
        ("kvm_report", "", ["no recording in this folder", "kvm_record"]),
        ("kvm_report", "broken.data", ["broken.data"]),
        ("kvm_diff", "", ["perf.data.host", "not there"]),
        ("kvm_record", "--guest --vm nobody --duration 1", ["no VM 'nobody'"]),
        ("kvm_record", "--host -e no-such-event --duration 1", ["no-such-event"]),
        ("kvm_record", "--host -e kvm:no_such_point --duration 1", ["no_such_point"]),
        ("kvm_record", "--host --pid 0-x", ["list of numbers"]),
        ("kvm_record", "--host --no-such-option", ["--no-such-option"]),
        ("kvm_record", "--host --pid 99999999 --duration 1", ["99999999"]),
        ("kvm_top", "--sort nothing", ["sort key"]),
        ("kvm_top", "--order nothing", ["sort key"]),
        ("kvm_top", "--filter (", ["regular expression"]),
        ("kvm_top", "-K -U", ["nothing is shown", "hide less"]),
        ("kvm_top", "-d 0", ["no delay"]),
        ("kvm_top", "-E 0", ["entries"]),
        ("kvm_list", "what", ["no arguments"]),
        ("kvm_report", '"broken.data', ["quotation"]),
        ("kvm_report", "calm -C 0-99999999999", ["range of numbers"]),
        ("kvm_report", "calm -C 5-1", ["range of numbers"]),
        ("kvm_report", "calm --time 5,1", ["ends before"]),
        ("kvm_report", "calm --kallsyms nowhere", ["kallsyms", "nowhere"]),
        ("kvm_report", "broken.data --guest-elf nowhere", ["guest_elf", "nowhere"]),
        ("kvm_record", "--guest --guest-elf nowhere", ["guest_elf", "nowhere"]),
        ("kvm_record", "--host --duration nan", ["duration"]),
        ("kvm_record", "--host --duration -1", ["duration", "more than 0"]),
        ("kvm_record", "--host -F 0 --duration 1", ["frequency 0"]),
        ("kvm_record", "--host -F often --duration 1", ["hertz"]),
        ("kvm_record", "--host -c -1 --duration 1", ["period -1"]),
        ("kvm_record", "--host -m 0 --duration 1", ["mmap_pages 0"]),
        ("kvm_record", "--host -m 1X --duration 1", ["mmap_pages", "512K"]),
        ("kvm_record", "--host --", ["no command"]),
        ("kvm_top", "--duration 0", ["duration"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    shell: InteractiveShell, magic: str, line: str, words: list[str]
) -> None:
    Path("broken.data").write_bytes(b"PERFILE2" + b"\0" * 10)
    shell.user_ns["calm"] = demo.replay("calm")
    with pytest.raises(UsageError) as caught:
        shell.run_line_magic(magic, line)
    said = str(caught.value)
    assert "\n" not in said
    assert all(word in said for word in words), said


def test_ctrl_c_is_said_in_one_line(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> MachineList:
        raise KeyboardInterrupt

    monkeypatch.setattr(MachineList, "found", interrupted)
    with pytest.raises(UsageError, match=r"^interrupted$"):
        shell.run_line_magic("kvm_list", "")


@pytest.mark.root
def test_a_diff_is_of_one_event_or_says_so(tmp_path: Path) -> None:
    code = [sys.executable, "-c", "for i in range(10**6): pass"]
    names = {"clock": ["cpu-clock"], "faults": ["page-faults"], "two": ["page-faults", "cpu-clock"]}
    clock, faults, two = (
        kvm.record(host=True, command=code, events=events, output=tmp_path / name)
        for name, events in names.items()
    )
    assert kvm.diff(clock, two).other.profile.unit == clock.profile.unit
    assert not any("shares" in said for said in kvm.diff(clock, two).warnings)
    said = kvm.diff(clock, faults).warnings[0]
    assert "cpu-clock" in said
    assert "page-faults" in said


def test_names_control_no_terminal(shell: InteractiveShell) -> None:
    hostile = "\x1b]0;x\x07\u202e"
    host = Machine(0, "host", "host")
    listed = MachineList([host, Machine(1, hostile, notes=[hostile])], [Facts(None), Facts(None)])
    with pytest.raises(UsageError) as caught:
        shell.run_line_magic("kvm_report", f"{hostile}.data")
    recording = kvm.open(demo.replay("calm").path, guest_elf={hostile: demo.guest_elf()})
    for said in (repr(listed), str(caught.value), repr(recording), repr(recording.report())):
        assert not set(hostile) - {"]", "0", ";", "x"} & set(said)


def test_nothing_is_cut_off_in_a_terminal(shell: InteractiveShell, tmp_path: Path) -> None:
    whole = Path(demo.replay("calm").path).read_bytes()
    (tmp_path / "cut.data").write_bytes(whole[: len(whole) // 2])
    recording = kvm.open(tmp_path / "cut.data")
    said = repr(recording).splitlines()
    assert {f"warning: {warning}" for warning in recording.warnings} <= set(said)
    assert recording.lost.damage[0].message in repr(recording)


def test_top_takes_perfs_options(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr("kvmperf_magic.live.top", lambda **given: told.update(given))
    shell.run_line_magic("kvm_top", "")
    plain = {"delay": 1.0, "keys": None, "sort": "overhead", "filter": "", "entries": 20}
    plain |= {"count_filter": None, "decay": True, "hide_kernel": False, "hide_user": False}
    assert {name: told[name] for name in plain} == plain
    short = "-z -d 5 -s comm,dso -f 3 -E 7 -K -U"
    long = "--zero --delay 5 --sort comm,dso --count-filter 3 --entries 7"
    long += " --hide_kernel_symbols --hide_user_symbols"
    given = {"delay": 5.0, "keys": "comm,dso", "entries": 7, "count_filter": 3, "decay": False}
    given |= {"hide_kernel": True, "hide_user": True}
    for line in (short, long):
        shell.run_line_magic("kvm_top", line)
        assert {name: told[name] for name in given} == given
    shell.run_line_magic("kvm_top", "-z --decay --order=-samples --filter lock")
    assert (told["decay"], told["sort"], told["filter"]) == (True, "-samples", "lock")
    for line in ("--filter 'a|b c'", '--filter "a|b c"'):
        shell.run_line_magic("kvm_top", line)
        assert told["filter"] == "a|b c"
    shell.run_line_magic("kvm_top", '--filter="a|b"')
    assert told["filter"] == "a|b"
    shell.run_line_magic("kvm_top", r"--filter \bspin")
    assert told["filter"] == r"\bspin"


def test_symbol_options_count_for_what_is_open_already(shell: InteractiveShell) -> None:
    shell.user_ns["rec"] = kvm.open(demo.replay("calm").path, cache=False).filter(vcpu=0)
    bare = shell.run_line_magic("kvm_report", "rec --sort symbol")
    named = shell.run_line_magic("kvm_report", f"rec --sort symbol --guest-elf {demo.guest_elf()}")
    assert "ext3_test_allocatable" in set(named.table["symbol"]) - set(bare.table["symbol"])
    assert len(named.recording) == len(bare.recording) > 0
    shell.user_ns["p"] = named
    again = shell.run_line_magic("kvm_report", "p --sort symbol,cpu")
    assert set(again.table["symbol"]) == set(named.table["symbol"])


def test_a_quoted_expression_is_what_is_searched_for(shell: InteractiveShell) -> None:
    shell.user_ns["rec"] = demo.replay("both")
    found = shell.run_line_magic("kvm_report", 'rec --symbol "spin_lock|find_revoke" --sort symbol')
    assert set(found.table["symbol"]) >= {"__ticket_spin_lock", "find_revoke_record"}
    assert len(found.recording) < len(shell.user_ns["rec"])


def test_help_shows_the_options_and_examples(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in {
        "kvm_record": ["--guest-elf", "--duration", "-F HZ", "%%kvm_record --guest"],
        "kvm_report": ["--sort", "--percent-limit", "p.flamegraph"],
        "kvm_diff": ["--compute", "wdiff", "perf.data.kvm"],
        "kvm_top": ["--delay", "--zero", "-K", "snapshot"],
        "kvm_list": ["vCPU threads"],
    }.items():
        shell.run_cell(f"%{name}?")
        said = capsys.readouterr().out
        assert all(word in said for word in words), (name, said)


def complete(shell: InteractiveShell, line: str) -> list[str]:
    with provisionalcompleter():
        found = list(shell.Completer.completions(line, len(line)))
    return [line[: one.start] + one.text for one in found]


def test_completion(shell: InteractiveShell) -> None:
    Path("perf.data.mine").touch()
    Path("two words.data").touch()
    shell.user_ns["recording"] = Recording.__new__(Recording)
    for line, wanted in {
        "%kvm_record --gu": "%kvm_record --guest-elf",
        "p = %kvm_report --per": "p = %kvm_report --percent-limit",
        "%kvm_report perf.data.m": "%kvm_report perf.data.mine",
        "%kvm_report reco": "%kvm_report recording",
        "%kvm_diff --total ker": "%kvm_diff --total kernel",
        "%kvm_record -e cpu-cl": "%kvm_record -e cpu-clock",
        "%kvm_record -e cpu-clock,page-f": "%kvm_record -e cpu-clock,page-faults",
        "%kvm_report --sort comm,sy": "%kvm_report --sort comm,symbol",
        "%kvm_report --modes=guest-k": "%kvm_report --modes=guest-kernel",
        "%kvm_record --guest-elf web1=perf.data.m": "%kvm_record --guest-elf web1=perf.data.mine",
        "%kvm_record --call-graph dw": "%kvm_record --call-graph dwarf",
        "%kvm_report two": '%kvm_report "two words.data"',
    }.items():
        assert wanted in complete(shell, line), line
    assert not [c for c in complete(shell, "print(--gu") if "guest" in c]


@pytest.mark.kvm
@pytest.mark.alone
def test_completion_knows_the_vms(shell: InteractiveShell) -> None:
    with running_guest(1, "tabbed"):
        assert complete(shell, "%kvm_record --vm tab") == ["%kvm_record --vm tabbed"]


@pytest.mark.root
def test_the_command_line_leaves_a_command_alone_and_ends_with_its_reader(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "a b.data")
    script = 'word=$(echo said); echo "$word  {x}" $$'
    assert main(["record", "--host", "-q", "-o", path, "--", "sh", "-c", script]) == 0
    assert re.search(r"^said  \{x\} \d+$", capfd.readouterr().out, re.MULTILINE)
    command = [sys.executable, "-m", "kvmperf_magic", "report", path]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_guest_elf_of_no_vm_is_said() -> None:
    path, elf = demo.replay("calm").path, demo.guest_elf()
    wrong = kvm.open(path, guest_elf={"crowded": elf}, cache=False)
    assert any("'crowded'" in said and "calm" in said for said in wrong.warnings)
    assert not any("is not here" in said for said in demo.replay("calm").warnings)
