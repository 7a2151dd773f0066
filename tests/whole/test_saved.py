"""Recordings that carry their symbols: the same report where no binary is, and in perf."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from elsewhere import answers
from IPython.core.interactiveshell import InteractiveShell

import kvmperf_magic as kvm
from kvmperf_magic import demo
from kvmperf_magic.errors import FileError
from kvmperf_magic.perfdata.abi import Feature
from kvmperf_magic.perfdata.reader import read
from kvmperf_magic.recording import Recording

HERE = Path(__file__).parent
DEMOS = Path(demo.__file__).parent / "recordings"
PROGRAM = """
#include <fcntl.h>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>
namespace ns { template <class T> struct S { T v;
    __attribute__((noinline)) T work(int n, const std::string &s)
    { T r = 0; for (int i = 0; i < n; i++) r += (T)(i * 3) ^ (T)s.size(); return r + v; } }; }
static __attribute__((noinline)) long local(std::vector<int> &v)
{ long s = 0; for (auto &x : v) s += x * 7 % 13; return s; }
int main()
{
    ns::S<long> s{1};
    std::vector<int> v(1000, 3);
    std::map<std::string, int> m;
    static char page[1 << 16];
    int zero = open("/dev/zero", O_RDONLY);  // what the kernel does takes a good part of the time
    volatile long r = 0;
    for (int i = 0; i < 30000; i++) {
        r += s.work(1000, "abc") + local(v);
        m[std::to_string(i % 500)] += i;
        if (i % 8 == 0) r += read(zero, page, sizeof page);
    }
}
"""


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is cut to the width of the terminal, which a test may not have."""
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    (folder / "work.cc").write_text(PROGRAM)
    command = ["g++", "-O1", "-fno-omit-frame-pointer", "work.cc", "-o", "work"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "work"


@pytest.fixture(scope="module")
def recorded(
    program: Path, perf: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """perf's recording of it, with stacks."""
    path = tmp_path_factory.mktemp("recorded") / "perf.data"
    how = ["-q", "-g", "-e", "cpu-clock", "-F", "5000", "--buildid-mmap"]
    perf("record", *how, "-o", path, "--", program)
    return path


def far_away(saved: Path, recording: Recording, tmp_path: Path) -> dict[str, object]:
    """What is shown of it where none of the files is that its names came from."""
    said = recording.symbols
    paths = {*said["dso"].tolist(), *said["source"].tolist(), "/proc/kallsyms"}
    hidden = [one for one in paths if Path(one).is_file()]
    hidden += [one for one in (str(Path.home() / ".debug"), "/usr/lib/debug") if Path(one).is_dir()]
    output = tmp_path / "answers.json"
    command = ["unshare", "-m", sys.executable, HERE / "elsewhere.py", saved, output, *hidden]
    subprocess.run(command, check=True)
    found: dict[str, object] = json.loads(output.read_text())
    return found


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.compiler
def test_the_same_report_byte_for_byte_without_the_binaries(
    recorded: Path, program: Path, tmp_path: Path
) -> None:
    recording = kvm.open(recorded, cache=False)
    recording.save(tmp_path / "work.kvmperf")
    here = answers(str(recorded))
    assert "ns::S<long>::work" in here["report"]
    assert "local" in here["folded"]
    assert "[k]" in here["report"], "no kernel code was sampled"
    assert far_away(tmp_path / "work.kvmperf", recording, tmp_path) == here
    # what it is worth: without the symbols there are no names
    shutil.copy(recorded, tmp_path / "bare.data")
    bare = far_away(tmp_path / "bare.data", recording, tmp_path)
    assert "ns::S<long>::work" not in str(bare["report"])
    # no content of any file is in there: only names that samples hit
    assert (tmp_path / "work.kvmperf").stat().st_size < 2 * recorded.stat().st_size
    packed = kvm.open(tmp_path / "work.kvmperf", cache=False)
    assert packed.to_folded(modes=("host", "guest")) == here["folded"]
    assert packed.symbols["symbols"].tolist() == recording.symbols["symbols"].tolist()
    names = bytes(read(tmp_path / "work.kvmperf").symbols or b"")
    assert b"_ZN2ns1SIlE4work" in names
    assert b"_GLOBAL__sub_I" not in names


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.compiler
def test_perf_reads_a_perf_data_that_carries_symbols(
    recorded: Path, perf: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "perf.data"
    kvm.open(recorded, cache=False).save(path)
    here = answers(str(recorded))
    assert answers(str(path)) == here
    assert far_away(path, kvm.open(recorded, cache=False), tmp_path) == here
    for what in (["report", "--stdio"], ["script"], ["buildid-list"]):
        said = [perf(*what, "-i", one).splitlines() for one in (path, recorded)]
        ours, theirs = ([line for line in lines if "# (Tip: " not in line] for lines in said)
        assert ours == theirs
        assert len(ours) > 3
    headers = [perf("report", "--header-only", "-i", one) for one in (recorded, path)]
    before, after = (
        [line for line in text.splitlines() if "captured" not in line and "_size" not in line]
        for text in headers
    )
    assert [line for line in after if "feat" not in line] == [
        line for line in before if "feat" not in line
    ]
    # saved again it is the same again: nothing grows
    size = path.stat().st_size
    kvm.open(path, cache=False).save(path)
    kvm.open(path, cache=False).save(path)
    assert path.stat().st_size <= size + 2 * len(read(path).features[Feature.KVMPERF_SYMBOLS])
    assert answers(str(path)) == here


@pytest.mark.parametrize("name", ["crowded", "both", "host"])
def test_guests_are_named_as_they_were(name: str, tmp_path: Path) -> None:
    """With the guest's program that was named, and what is warned of without it."""
    path = tmp_path / f"{name}.data"
    shutil.copy(DEMOS / path.name, path)
    symfs = Path(demo.host_elf()).parent
    told = kvm.open(path, cache=False, guest_elf=demo.guest_elf(), symfs=symfs)
    untold = kvm.open(path, cache=False)
    for recording, saved in ((told, "told.kvmperf"), (untold, "untold.kvmperf")):
        recording.save(tmp_path / saved)
        there = kvm.open(tmp_path / saved, cache=False)
        assert repr(there.report()) == repr(recording.report())
        assert there.to_folded() == recording.to_folded()
        assert there.warnings == recording.warnings
        assert there.samples.to_csv() == recording.samples.to_csv()
        # and from there once more
        there.save(tmp_path / "again.kvmperf")
        again = kvm.open(tmp_path / "again.kvmperf", cache=False)
        assert repr(again.report()) == repr(recording.report())
    assert (len(untold.warnings) > len(told.warnings)) == (name != "host")
    # what is named then counts more than what was kept
    named = kvm.open(tmp_path / "untold.kvmperf", guest_elf=demo.guest_elf(), symfs=symfs)
    assert named.to_folded() == told.to_folded()


def test_what_was_named_in_vain_leaves_what_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "both.data"
    shutil.copy(DEMOS / path.name, path)
    symfs = Path(demo.host_elf()).parent
    recording = kvm.open(path, cache=False, guest_elf=demo.guest_elf(), symfs=symfs)
    recording.filter(modes="guest").save(tmp_path / "saved.kvmperf")
    for options in (
        {"symfs": tmp_path},
        {"guest_elf": {"another VM": demo.guest_elf()}},
        {"guest_symbols": "host"},
        {"debuginfod": "http://127.0.0.1:9"},
    ):
        there = kvm.open(tmp_path / "saved.kvmperf", cache=False, **options)
        # a view is saved whole
        assert there.samples.to_csv() == recording.samples.to_csv()


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.compiler
def test_stacks_that_were_unwound_need_no_files_any_more(
    program: Path, perf: Callable[..., str], tmp_path: Path
) -> None:
    pytest.importorskip("drgn", reason="the extra [dwarf] is not installed")
    path = tmp_path / "perf.data"
    how = ["-q", "--call-graph", "dwarf,4096", "-e", "cpu-clock", "-F", "499"]
    perf("record", *how, "-o", path, "--", program)
    recording = kvm.open(path, cache=False)
    recording.save(tmp_path / "work.kvmperf")
    here = answers(str(path))
    assert "main;ns::S<long>::work" in here["folded"]
    assert far_away(tmp_path / "work.kvmperf", recording, tmp_path) == here


@pytest.mark.perf
@pytest.mark.root
@pytest.mark.compiler
def test_from_a_cache_it_is_saved_the_same(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache holds the names of samples, not the tables that they come from."""
    path = tmp_path / "perf.data"
    shutil.copy(recorded, path)
    monkeypatch.setattr("kvmperf_magic.source._WORTH_KEEPING", 0)
    for name in ("first.kvmperf", "again.kvmperf"):
        recording = kvm.open(path)
        assert len(recording)
        recording.save(tmp_path / name)
        for thread in threading.enumerate():
            if thread.name.startswith("kvmperf-cache"):
                thread.join()
    assert (tmp_path / ".perf.data.kvmperf-names").exists()
    first, again = ((tmp_path / name).read_bytes() for name in ("first.kvmperf", "again.kvmperf"))
    assert first == again
    # what is saved is remembered, too
    there = [repr(kvm.open(tmp_path / "first.kvmperf").report()) for _ in range(2)]
    assert there == [repr(kvm.open(recorded, cache=False).report())] * 2


def test_damaged_names_in_a_perf_data_are_a_warning(tmp_path: Path) -> None:
    """The recording itself is whole: it is read, and named by what is here."""
    path = tmp_path / "crowded.data"
    recording = kvm.open(DEMOS / path.name, cache=False, guest_elf=demo.guest_elf())
    recording.save(path)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"KVMBLOB")
    data[at + 16 : at + 24] = b"<script>"
    path.write_bytes(data)
    there = kvm.open(path, cache=False)
    assert len(there) == len(recording)
    assert "names that the recording carries" in there.warnings[0]
    named = kvm.open(path, cache=False, guest_elf=demo.guest_elf())
    assert named.to_folded() == recording.to_folded()


@pytest.mark.perf
@pytest.mark.root
def test_a_directory_of_threads_becomes_one_file(perf: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "perf.data"
    loop = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
    perf(
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "--threads=cpu",
        "-a",
        "-o",
        folder,
        "--",
        "sh",
        "-c",
        loop,
    )
    recording = kvm.open(folder, cache=False)
    recording.save(tmp_path / "one.kvmperf")
    with pytest.raises(FileError, match=r"directory.*\.kvmperf"):
        recording.save(tmp_path / "one.data")
    assert not (tmp_path / "one.data").exists()
    assert answers(str(tmp_path / "one.kvmperf")) == answers(str(folder))


@pytest.mark.root
def test_the_magics_write_and_read_it(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "i = 0\\nwhile i < 2000000: i += 1"
    said = f"--host -q -o busy.kvmperf -- {sys.executable} -c \"exec('{code}')\""
    recording = shell.run_line_magic("kvm_record", said)
    # but for what another opening would be spared
    left = [path.name for path in tmp_path.iterdir() if path.suffix != ".kvmperf-names"]
    assert left == ["busy.kvmperf"]
    assert not list(tmp_path.glob(".busy.kvmperf.data*"))
    assert len(recording) > 50
    assert recording.name == "busy.kvmperf"
    report = shell.run_line_magic("kvm_report", "busy.kvmperf --sort symbol --no-cache")
    assert repr(report) == repr(recording.report(sort="symbol", order="children"))
    symbols = recording.symbols
    assert symbols["symbols"].max() > 1000
    assert set(symbols["dso"]) == set(kvm.open("busy.kvmperf", cache=False).symbols["dso"])


def test_what_was_not_finished_has_no_place_for_it(tmp_path: Path) -> None:
    data = bytearray((DEMOS / "host.data").read_bytes())
    data[48:56] = bytes(8)
    (tmp_path / "killed.data").write_bytes(data)
    recording = kvm.open(tmp_path / "killed.data", cache=False)
    with pytest.raises(FileError, match="not finished"):
        recording.save(tmp_path / "other.data")
    assert [path.name for path in tmp_path.iterdir()] == ["killed.data"]
    recording.save(tmp_path / "killed.kvmperf")
    there = kvm.open(tmp_path / "killed.kvmperf", cache=False)
    assert repr(there.report()) == repr(recording.report())
