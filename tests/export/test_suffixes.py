"""The format is the suffix: `--export` of the magics and of the command line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from kvmperf_magic import demo
from kvmperf_magic.cli import main
from kvmperf_magic.errors import QueryError
from kvmperf_magic.exporting import SUFFIXES, format_of

_RECORDINGS = Path(demo.__file__).parent / "recordings"


def _json(key: str) -> Callable[[bytes], bool]:
    return lambda data: key in json.loads(data)


_LOOKS: dict[str, Callable[[bytes], bool]] = {
    "speedscope": _json("$schema"),
    "gecko": _json("threads"),
    "folded": lambda data: b"web1;vCPU 0;[guest user]" in data,
    "pprof": lambda data: b"guest-user" in data,
    "parquet": lambda data: data[:4] == data[-4:] == b"PAR1",
    "csv": lambda data: data.startswith(b"comm,dso,symbol,overhead"),
    "json": lambda data: "overhead" in json.loads(data)[0],
    "html": lambda data: data.startswith(b"<!"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_magic_writes_what_the_suffix_says(shell: InteractiveShell, suffix: str) -> None:
    line = f"{_RECORDINGS / 'both.data'} --export out{suffix}"
    report = shell.run_line_magic("kvm_report", line)
    data = Path(f"out{suffix}").read_bytes()
    if suffix.endswith(".gz") or suffix == ".pprof":
        data = gzip.decompress(data)
    assert _LOOKS[SUFFIXES[suffix]](data)
    assert len(report.table)


def test_filters_and_modes_hold_for_the_export(shell: InteractiveShell) -> None:
    line = f"{_RECORDINGS / 'both.data'} --modes guest --vcpu 1 --export out.folded"
    report = shell.run_line_magic("kvm_report", line)
    lines = Path("out.folded").read_text().splitlines()
    assert {line.split(";")[1] for line in lines} == {"vCPU 1"}
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == report.report.total


def test_a_suffix_that_says_nothing_is_told_before_the_work(shell: InteractiveShell) -> None:
    with pytest.raises(UsageError, match=r"out\.xls.*\.speedscope\.json"):
        shell.run_line_magic("kvm_report", "/no/such/file --export out.xls")
    with pytest.raises(UsageError, match=r"out\.pb\.gz"):  # a diff has no samples
        shell.run_line_magic("kvm_diff", "--export out.pb.gz")


def test_a_folder_that_is_not_there_is_one_readable_line(shell: InteractiveShell) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        shell.run_line_magic("kvm_report", f"{_RECORDINGS / 'both.data'} --export no/out.csv")


def test_a_diff_is_a_table(shell: InteractiveShell) -> None:
    files = f"{_RECORDINGS / 'calm.data'} {_RECORDINGS / 'crowded.data'}"
    answer = shell.run_line_magic("kvm_diff", f"{files} --export out.json")
    rows = json.loads(Path("out.json").read_text())
    assert [row["symbol"] for row in rows] == answer.table["symbol"].tolist()


def test_export_completes_files(shell: InteractiveShell) -> None:
    Path("wanted.csv").touch()
    line = "%kvm_report --export wan"
    with provisionalcompleter():
        found = [c.text for c in shell.Completer.completions(line, len(line))]
    assert "wanted.csv" in found


def test_the_command_line_writes_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    InteractiveShell.clear_instance()
    out = tmp_path / "out.speedscope.json"
    try:
        assert main(["report", str(_RECORDINGS / "both.data"), "--export", str(out)]) == 0
        assert main(["report", str(_RECORDINGS / "both.data"), "--export", "out.what"]) == 2
        assert main(["report", "--help"]) == 0
    finally:
        InteractiveShell.clear_instance()
    assert "profiles" in json.loads(out.read_text())
    said = capsys.readouterr()
    assert ".speedscope.json" in said.out
    assert "out.what" in said.err


def test_every_suffix_is_told_apart() -> None:
    for suffix, form in SUFFIXES.items():
        assert format_of(f"/some/where/A.B{suffix.upper()}") == form
    with pytest.raises(QueryError):
        format_of("profile")
