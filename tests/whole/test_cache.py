"""A second opening says what the first one said, unless something it came from has changed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kvmperf_magic as kvm
from kvmperf_magic import arguments, cache, remembering, source
from kvmperf_magic.cache import Cache
from kvmperf_magic.recording import Recording

KEY = {"made": "of this", "list": [1, None]}
ARRAYS = {
    "long": np.arange(100_003, dtype=np.uint64),
    "odd": np.arange(13, dtype=np.uint8),
    "none": np.zeros(0, np.int32),
}
PROGRAM = """
#include <unistd.h>
volatile unsigned long n;
__attribute__((noinline)) void NAME(void) { for (unsigned long i = 0; i < 10000000; i++) n += i; }
int main(void) { for (int i = 0; i < 10; i++) NAME(); return 0; }
"""


def written() -> None:
    """Wait for the threads that write."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name.startswith("kvmperf-cache"):
            thread.join()


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.kvmperf-*"))


@pytest.fixture(autouse=True)
def everything_is_worth_keeping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(source, "_WORTH_KEEPING", -1.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    # build-ids that another perf adds to the user's own meanwhile would end every cache
    monkeypatch.setenv("HOME", str(tmp_path))


class TestFile:
    """The file itself, with any arrays."""

    def place(self, folder: Path) -> Path:
        (folder / "perf.data").write_bytes(b"a recording")
        Cache(folder / "perf.data").save("part", KEY, {"said": "ü"}, ARRAYS)
        return folder / ".perf.data.kvmperf-part"

    def load(self, folder: Path, key: dict[str, Any] = KEY) -> Any:
        return Cache(folder / "perf.data").load("part", key)

    def test_round_trip(self, tmp_path: Path) -> None:
        self.place(tmp_path)
        meta, arrays = self.load(tmp_path)
        assert meta == {"said": "ü"}
        assert arrays.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            assert arrays[name].tolist() == array.tolist()

    def test_another_key(self, tmp_path: Path) -> None:
        self.place(tmp_path)
        assert self.load(tmp_path, {**KEY, "list": [1, 2]}) is None
        assert Cache(tmp_path / "perf.data").load("other", KEY) is None

    def test_any_damage_is_noticed(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        whole = place.read_bytes()
        arrays = sum(-(-a.nbytes // 64) * 64 for a in ARRAYS.values())
        padding = set(range(len(whole) - arrays + 100_003 * 8, len(whole) - 64))
        padding |= set(range(len(whole) - 64 + 13, len(whole)))
        places = np.random.default_rng(1).integers(0, len(whole), 60).tolist()
        for at in [0, 8, 20, len(whole) - arrays - 1, len(whole) - 60, *places]:
            if at in padding:
                continue
            changed = bytearray(whole)
            changed[at] ^= 0x10
            place.write_bytes(changed)
            assert self.load(tmp_path) is None, at
        for length in (0, 7, 16, 40, 1000, len(whole) - 1):
            place.write_bytes(whole[:length])
            assert self.load(tmp_path) is None, length
        place.write_bytes(whole)
        assert self.load(tmp_path) is not None

    def test_killed_while_writing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was there before stays, whole."""
        place = self.place(tmp_path)
        before = place.read_bytes()

        def dies(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            Cache(tmp_path / "perf.data").save("part", KEY, {"said": "new"}, ARRAYS)
        assert place.read_bytes() == before
        assert kept(tmp_path) == [place]

    def test_where_nothing_can_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not beside the file: in the user's folder; not there either: nowhere, silently."""
        write, refused = cache._write, [tmp_path]

        def guarded(place: Path, *rest: Any) -> None:
            if place.parent in refused:
                raise PermissionError(place)
            write(place, *rest)

        monkeypatch.setattr(cache, "_write", guarded)
        self.place(tmp_path)
        assert kept(tmp_path) == []
        assert self.load(tmp_path)[0] == {"said": "ü"}
        (home,) = (tmp_path / "home" / "kvmperf_magic").iterdir()
        home.unlink()
        refused.append(home.parent)
        self.place(tmp_path)
        assert self.load(tmp_path) is None

    def test_only_files_are_looked_at(self, tmp_path: Path) -> None:
        """Not what a link leads to, and nobody waits for the other end of a pipe."""
        place = self.place(tmp_path)
        aside = place.rename(tmp_path / "aside")
        place.symlink_to(aside)
        assert self.load(tmp_path) is None
        place.unlink()
        os.mkfifo(place)
        assert self.load(tmp_path) is None
        place.unlink()
        aside.rename(place)
        assert self.load(tmp_path) is not None

    def test_a_user_without_a_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def nowhere() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", nowhere)
        self.place(tmp_path)
        assert self.load(tmp_path)[0] == {"said": "ü"}

    @pytest.mark.root
    def test_what_others_left_is_not_looked_at(self, tmp_path: Path) -> None:
        os.chown(self.place(tmp_path), 4242, 4242)
        assert self.load(tmp_path) is None


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds a program whose time goes to a function of this name, always at the same path."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("program")

    def build(name: str) -> Path:
        path = folder / "busy"
        (folder / "busy.c").write_text(PROGRAM.replace("NAME", name))
        command = ["gcc", "-O1", "-fno-omit-frame-pointer", "-Wl,--build-id=none"]
        subprocess.run([*command, "-o", path, folder / "busy.c"], check=True)
        return path

    return build


@pytest.fixture
def recorded(perf: Callable[..., str], program: Callable[[str], Path], tmp_path: Path) -> Path:
    path = tmp_path / "perf.data"
    busy = str(program("spins"))
    perf("record", "-q", "-g", "-e", "cpu-clock", "-F", "2000", "-o", str(path), "--", busy)
    return path


def answers(recording: Recording) -> list[Any]:
    samples, chains = recording.samples, recording.callchains
    found: list[Any] = [list(samples[name]) for name in samples.columns]
    found += [list(recording.report(sort=keys).report.table.rows()) for keys in ("symbol", "mode")]
    found += [recording.to_folded(), list(recording.events.rows()), recording.warnings]
    found += [chains.ip.tolist(), chains.mode.tolist(), chains.symbol.values().tolist()]
    return found


def never(*_: object) -> None:
    raise AssertionError("decoded again")


@pytest.mark.perf
class TestRecording:
    def test_second_opening(self, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = answers(kvm.open(recorded, cache=False))
        assert kept(recorded.parent) == []
        assert answers(kvm.open(recorded)) == expected
        written()
        assert [p.suffix for p in kept(recorded.parent)] == [".kvmperf-names", ".kvmperf-stacks"]
        monkeypatch.setattr(source, "decode", never)
        again = kvm.open(recorded)
        assert answers(again) == expected
        assert "spins" in again.samples["symbol"]
        assert answers(again.filter(modes="host-user"))[-3]
        with pytest.raises(AssertionError, match="decoded again"):
            kvm.open(recorded, cache=False).samples  # noqa: B018
        with pytest.raises(AssertionError, match="decoded again"):
            kvm.open(recorded, demangle=False).samples  # noqa: B018

    def test_names_without_stacks(self, recorded: Path) -> None:
        """Stacks that nobody asked for the first time are worked out the second time, and kept."""
        first = kvm.open(recorded)
        assert len(first.report(children=False).report.table)
        written()
        assert [p.suffix for p in kept(recorded.parent)] == [".kvmperf-names"]
        folded = kvm.open(recorded).to_folded()
        written()
        assert folded == kvm.open(recorded, cache=False).to_folded()
        assert len(kept(recorded.parent)) == 2

    def test_a_changed_symbol_file(self, recorded: Path, program: Callable[[str], Path]) -> None:
        assert "spins" in kvm.open(recorded).samples["symbol"]
        written()
        program("turns")
        symbols = kvm.open(recorded).samples["symbol"]
        assert "turns" in symbols
        assert "spins" not in symbols

    def test_a_symbol_file_that_went_and_came(
        self, recorded: Path, program: Callable[[str], Path]
    ) -> None:
        path = program("spins")
        aside = path.rename(path.with_name("aside"))
        assert "spins" not in kvm.open(recorded).samples["symbol"]
        written()
        aside.rename(path)
        assert "spins" in kvm.open(recorded).samples["symbol"]

    def test_what_is_said_is_the_same(
        self, perf: Callable[..., str], program: Callable[[str], Path], recorded: Path
    ) -> None:
        """Before stacks were asked for and after, whatever of both comes from the cache."""
        busy = program("spins")
        command = ["record", "-q", "--call-graph", "dwarf,8192", "-e", "cpu-clock", "-F", "500"]
        perf(*command, "-o", str(recorded), "--", str(busy))
        aside = busy.rename(busy.with_name("aside"))

        def said(recording: Recording) -> list[Any]:
            found = [recording.warnings, list(recording.symbols.rows())]
            assert len(recording.callchains.ip)
            return [*found, recording.warnings, list(recording.symbols.rows())]

        expected = said(kvm.open(recorded, cache=False))
        assert len(expected[2]) > len(expected[0])
        for kept_before in ([], ["names"], ["names", "stacks"]):
            for place in kept(recorded.parent):
                if place.suffix.removeprefix(".kvmperf-") not in kept_before:
                    place.unlink()
            assert said(kvm.open(recorded)) == expected
            written()
        memory = kvm.open(recorded)._source._memory
        assert memory is not None
        found = memory._load("stacks")
        assert found is not None
        of_stacks = {row["dso"] for row in expected[3] if str(row["dso"]).startswith("/")}
        assert of_stacks <= found[0]["files"].keys()
        aside.rename(busy)

    def test_symbols_that_were_installed_later(
        self, recorded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(remembering, "_DEBUG", tmp_path / "debug")
        assert len(kvm.open(recorded).samples)
        written()
        assert kvm.open(recorded)._source._remembered is not None
        (tmp_path / "debug/.build-id/ab").mkdir(parents=True)
        assert kvm.open(recorded)._source._remembered is None

    def test_another_recording_at_its_path(
        self, perf: Callable[..., str], recorded: Path, program: Callable[[str], Path]
    ) -> None:
        """A recording that was opened before is not what is remembered of the new one."""
        first = kvm.open(recorded)
        expected = answers(kvm.open(recorded, cache=False))
        recorded.rename(recorded.with_name("perf.data.old"))
        command = ["record", "-q", "-e", "cpu-clock", "-F", "1000", "-o", str(recorded), "--"]
        perf(*command, str(program("spins")))
        assert answers(first) == expected
        written()
        other = answers(kvm.open(recorded, cache=False))
        assert other != expected
        assert answers(kvm.open(recorded)) == other

    def test_a_changed_recording(self, recorded: Path) -> None:
        """Even one that has kept its size and its time."""
        first = answers(kvm.open(recorded))
        written()
        was, data = recorded.stat(), bytearray(recorded.read_bytes())
        data[-1] ^= 1
        recorded.write_bytes(data)
        os.utime(recorded, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert recorded.stat().st_ino == was.st_ino
        memory = kvm.open(recorded)._source._memory
        assert memory is not None
        assert memory.names(never) is None  # type: ignore[arg-type]
        assert answers(kvm.open(recorded))[:13] == first[:13]

    def test_damaged_caches_are_written_anew(self, recorded: Path) -> None:
        expected = answers(kvm.open(recorded))
        written()
        for place in kept(recorded.parent):
            place.write_bytes(place.read_bytes()[:-100])
        assert answers(kvm.open(recorded)) == expected
        written()
        assert all(place.stat().st_size > 1000 for place in kept(recorded.parent))

    def test_small_recordings_keep_nothing(
        self, recorded: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(source, "_WORTH_KEEPING", 60.0)
        answers(kvm.open(recorded))
        written()
        assert kept(recorded.parent) == []

    def test_it_is_nobody_elses(self, recorded: Path) -> None:
        """What is known of a recording is for those who may read the recording."""
        answers(kvm.open(recorded))
        written()
        for place in kept(recorded.parent):
            assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize(("line", "expected"), [("", {}), ("--no-cache", {"cache": False})])
def test_option(line: str, expected: dict[str, Any]) -> None:
    from IPython.core.magic_arguments import magic_arguments, parse_argstring

    @magic_arguments()
    @arguments.options(arguments.SYMBOL_OPTIONS, arguments.CACHE_OPTION)
    def magic(self: object, line: str) -> None: ...

    assert arguments.opening_arguments(parse_argstring(magic, line)) == expected
