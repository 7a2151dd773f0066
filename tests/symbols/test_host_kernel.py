"""The host kernel's other sources: modules' files, BPF programs, copies of kcore, and what speaks
against a vmlinux."""

from __future__ import annotations

import bz2
import gzip
import lzma
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perfrecord import build, categorical, comm_table, fork_table
from programs import BPF
from test_sources import BASE, KALLSYMS, kernel_map, names

from kvmperf_magic import demo
from kvmperf_magic.modes import HOST_KERNEL
from kvmperf_magic.recording import open_recording
from kvmperf_magic.symbols import kept, modules
from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.spaces import AddressSpaces
from kvmperf_magic.symbols.symbolizer import Symbolizer
from kvmperf_magic.table import Table

MODULE = """
#define AT(s) __attribute__((section(s), noinline))
int AT(".init.text") start(void) { return 1; }
int AT(".text.unlikely") rare(int n) { return n * 5; }
int __attribute__((noinline)) often(int n) { __asm__ volatile(""); return n * 3; }
int __attribute__((noinline)) seldom(int n) { return often(n) + rare(n); }
int AT(".exit.text") stop(void) { return 2; }
int counter = 7;
"""
WHERE = 0xFFFFFFFFC0500000
RELEASE = "6.1.0-test"


def host(mmap: Table, **more: Any) -> Symbolizer:
    options = more.pop("options", None) or SymbolOptions()
    spaces = AddressSpaces(mmap, comm_table([]), fork_table([]))
    told: dict[str, Any] = {"build_ids": {}, "same_boot": False, "os_release": RELEASE}
    return Symbolizer(spaces, mmap, options, **{**told, "vm_names": {}, **more})


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("module"), "some-thing.ko", MODULE, "-c")


def installed(module: Path, root: Path, suffix: str = "") -> Path:
    path = root / "lib/modules" / RELEASE / f"kernel/fs/some/some-thing.ko{suffix}"
    path.parent.mkdir(parents=True)
    packed = {".xz": lzma.compress, ".gz": gzip.compress, ".bz2": bz2.compress}
    path.write_bytes(packed.get(suffix, bytes)(module.read_bytes()))
    return path


@pytest.mark.compiler
@pytest.mark.parametrize("suffix", ["", ".xz", ".gz", ".bz2"])
@pytest.mark.parametrize("recorded", ["path", "[some_thing]"])
def test_a_module_is_named_by_its_own_file(
    suffix: str, recorded: str, module: Path, tmp_path: Path
) -> None:
    path = installed(module, tmp_path, suffix)
    if recorded == "path":
        recorded = "/" + str(path.relative_to(tmp_path))
    one = host(kernel_map(BASE, (WHERE, 0x3000, recorded)), options=SymbolOptions(symfs=tmp_path))
    table = modules.symbols(ElfImage(module), "some_thing", WHERE)
    expected = {"often", "seldom", "rare", "stop"}
    assert expected <= set(table.names)
    assert not {"start", "counter"} & set(table.names)
    found = {table.name(row): int(table.start[row]) for row in range(len(table))}
    for name in expected:
        assert names(one, HOST_KERNEL, found[name] + 1) == [(name, "[some_thing]")]
    # sections one behind the other, in the file's order, each aligned
    assert found["often"] == WHERE
    assert found["often"] < found["seldom"] < found["rare"] < found["stop"] < WHERE + 0x100
    assert names(one, HOST_KERNEL, WHERE + 0x2000) == [("[unknown]", "[some_thing]")]
    said = dict(zip(one.sources["dso"], one.sources["source"], strict=True))
    assert said["[some_thing]"] == str(path)


@pytest.mark.compiler
def test_a_module_of_another_build_is_refused(module: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked.ko"
    command = ["ld", "-r", "--build-id=sha1", module, "-o", linked]
    subprocess.run(command, check=True)
    installed(linked, tmp_path)
    mmap = kernel_map(BASE, (WHERE, 0x3000, "[some_thing]"))
    options = SymbolOptions(symfs=tmp_path)
    right = ElfImage(linked).build_id
    for build_id, name in ((right, "often"), ("cd" * 20, "[unknown]")):
        one = host(mmap, options=options, build_ids={"[some_thing]": build_id})
        assert names(one, HOST_KERNEL, WHERE + 1)[0][0] == name
    assert "is of another build" in one.sources["note"].tolist()[-1]
    # a path that leads elsewhere, and a release that is a path
    for release in ("../../etc", None):
        one = host(mmap, options=options, os_release=release)
        assert names(one, HOST_KERNEL, WHERE + 1)[0][0] == "[unknown]"
    for broken in (b"", b"\x7fELF", linked.read_bytes()[:200]):
        path = tmp_path / "lib/modules" / RELEASE / "kernel/fs/some/some-thing.ko"
        path.write_bytes(broken)
        one = host(mmap, options=options)
        assert names(one, HOST_KERNEL, WHERE + 1)[0][0] == "[unknown]"
        assert str(path) in one.sources["note"].tolist()[-1]


@pytest.mark.compiler
def test_modules_are_kept_with_a_recording(module: Path, tmp_path: Path) -> None:
    installed(module, tmp_path)
    mmap = kernel_map(BASE, (WHERE, 0x3000, "[some_thing]"))
    one = host(mmap, options=SymbolOptions(symfs=tmp_path))
    assert names(one, HOST_KERNEL, WHERE + 1)[0][0] == "often"
    keeping = kept.decode(kept.encode(kept.Keeping(one.kept())))
    there = host(mmap, keeping=keeping)
    assert names(there, HOST_KERNEL, WHERE + 1) == [("often", "[some_thing]")]
    assert there.sources["source"].tolist() == one.sources["source"].tolist()


def ksymbols(*rows: tuple[int, int, int, bool, str]) -> Table:
    at, length, kind, gone, name = zip(*rows, strict=True)
    return Table(
        {
            "time": np.arange(len(rows), dtype=np.uint64),
            "addr": np.array(at, np.uint64),
            "len": np.array(length, np.uint32),
            "type": np.array(kind, np.uint16),
            "unregister": np.array(gone, np.bool_),
            "name": categorical(name),
        }
    )


def test_programs_that_the_kernel_told_of(tmp_path: Path) -> None:
    """KSYMBOL records name BPF programs, also those that were unloaded meanwhile."""
    another = f"{WHERE + 0x100:016x} t bpf_prog_of_now\t[bpf]\n"
    (tmp_path / "kallsyms").write_text(KALLSYMS + another)
    told = ksymbols(
        (WHERE, 0x80, 1, False, "bpf_prog_one"),
        (WHERE + 0x100, 0x40, 1, False, "bpf_prog_two"),
        (WHERE + 0x200, 0x40, 2, False, "kprobe_insn_page"),
        (WHERE + 0x100, 0x40, 1, True, "bpf_prog_two"),
        (WHERE, 0x80, 1, False, "bpf_prog_later_at_the_same_place"),
        (2**64 - 4, 0x80, 1, False, "beyond the end"),
    )
    options = SymbolOptions(kallsyms=tmp_path / "kallsyms")
    one = host(kernel_map(BASE), ksymbols=told, options=options)
    asked = (WHERE + 4, WHERE + 0x13F, WHERE + 0x140, WHERE + 0x204, BASE + 0x104)
    expected = [
        ("bpf_prog_later_at_the_same_place", "[bpf]"),
        ("bpf_prog_two", "[bpf]"),
        ("bpf_prog_of_now", "[bpf]"),
        ("bpf_prog_of_now", "[bpf]"),
        ("start_kernel", "[kernel.kallsyms]"),
    ]
    assert names(one, HOST_KERNEL, *asked) == expected
    assert "KSYMBOL" in " ".join(one.sources["source"])
    keeping = kept.decode(kept.encode(kept.Keeping(one.kept())))
    assert names(host(kernel_map(BASE), keeping=keeping), HOST_KERNEL, *asked) == expected


@pytest.mark.perf
@pytest.mark.root
def test_a_real_program_that_is_gone(perf: Callable[..., str], tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the number of the bpf call is x86-64's")
    data, said = tmp_path / "perf.data", tmp_path / "said"
    how = ["-q", "-e", "cpu-clock", "-F", "2000", "-o", data]
    perf("record", *how, "--", sys.executable, "-c", BPF.replace("ROUNDS", "6"), said, check=False)
    if said.exists():
        pytest.skip(f"no BPF programs here: {said.read_text()}")
    printed = perf("script", "-i", data, "-F", "ip,sym,dso")
    theirs = sorted(
        (int(line.split()[0], 16), line.split()[1])
        for line in printed.splitlines()
        if " bpf_prog_" in line
    )
    samples = open_recording(data, cache=False).samples
    mine = samples[samples["dso"] == "[bpf]"]
    assert len(theirs) > 50
    assert sorted(zip(mine["ip"].tolist(), mine["symbol"], strict=True)) == theirs


def test_modules_that_are_loaded_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The running kernel's list is read again when its modules are others, and only then."""
    listed, loaded = tmp_path / "kallsyms", tmp_path / "modules"
    monkeypatch.setattr("kvmperf_magic.symbols.kernel.RUNNING", listed)
    monkeypatch.setattr("kvmperf_magic.symbols.kernel._MODULES", loaded)
    monkeypatch.setattr("kvmperf_magic.symbols.buildid.of_running_kernel", lambda: "")
    before = "ext4 974848 1 - Live 0xffffffffc0400000\n"
    listed.write_text(KALLSYMS)
    loaded.write_text(before)
    one = host(kernel_map(BASE), same_boot=True)
    asked = (BASE + 0x104, WHERE + 4)
    unnamed = [("start_kernel", "[kernel.kallsyms]"), ("[unknown]", "[unknown]")]
    assert names(one, HOST_KERNEL, *asked) == unnamed
    listed.write_text(
        f"{KALLSYMS}{WHERE:016x} t often\t[some_thing]\n{WHERE + 8:016x} t x\t[some_thing]\n"
    )
    loaded.write_text(before.replace("1 -", "2 -"))  # it is used once more
    one.refresh({})
    assert names(one, HOST_KERNEL, *asked) == unnamed
    loaded.write_text(f"some_thing 16384 0 - Live {WHERE:#x}\n{before}")
    one.refresh({})
    assert names(one, HOST_KERNEL, *asked) == [unnamed[0], ("often", "[some_thing]")]
    loaded.write_text(before)
    listed.write_text(KALLSYMS)
    one.refresh({})
    assert names(one, HOST_KERNEL, *asked) == unnamed


def test_copies_of_kcore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of `perf record --kcore` in the recording, that of `perf buildid-cache --kcore`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    build_id = "ab" * 20
    asked = (BASE + 0x104, 0xFFFFFFFFC0400004)
    expected = [("start_kernel", "[kernel.kallsyms]"), ("ext4_read", "[ext4]")]
    copy = tmp_path / ".debug/[kernel.kcore]" / build_id / "2026010112000000"
    copy.mkdir(parents=True)
    (copy / "kallsyms").write_text(KALLSYMS)
    one = host(kernel_map(BASE), build_ids={"[kernel.kallsyms]": build_id})
    assert names(one, HOST_KERNEL, *asked) == expected
    assert one.host.source == str(copy / "kallsyms")
    other = host(kernel_map(BASE), build_ids={"[kernel.kallsyms]": "cd" * 20})
    assert names(other, HOST_KERNEL, *asked)[0][0] == "[unknown]"
    assert "/proc/kallsyms is of another kernel" in other.host.note

    folder = tmp_path / "perf.data"
    (folder / "kcore_dir").mkdir(parents=True)
    (folder / "kcore_dir/kallsyms").write_text(KALLSYMS)
    shutil.copy(Path(demo.__file__).parent / "recordings/host.data", folder / "data")
    recording = open_recording(folder, cache=False)
    assert len(recording)
    said = dict(zip(recording.symbols["dso"], recording.symbols["source"], strict=True))
    if "[kernel.kallsyms]" in said:
        assert said["[kernel.kallsyms]"] == str(folder / "kcore_dir/kallsyms")
    one = host(kernel_map(BASE), kernel_directory=str(folder / "kcore_dir"))
    assert names(one, HOST_KERNEL, *asked) == expected


@pytest.mark.compiler
def test_a_vmlinux_is_held_against_the_running_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no build-id tells, its functions have to be where the running kernel lists them."""
    listed = [f"{BASE:016x} T _text", *(f"{BASE + 64 * n:016x} T f{n}" for n in range(1, 300))]
    (tmp_path / "kallsyms").write_text("\n".join(listed) + "\n")
    monkeypatch.setattr("kvmperf_magic.symbols.kernel.RUNNING", tmp_path / "kallsyms")
    mmap = kernel_map(BASE)
    flags = ("-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-e", "_text")
    for step, right in ((64, True), (80, False)):
        lines = [".text", ".globl _text", "_text:"]
        lines += [
            f".globl f{n}; .type f{n}, @function; .set f{n}, _text + {step * n}"
            for n in range(1, 300)
        ]
        (tmp_path / "v.s").write_text("\n".join([*lines, ".skip 32768"]) + "\n")
        subprocess.run(["gcc", *flags, "v.s", "-o", "vmlinux"], cwd=tmp_path, check=True)
        options = SymbolOptions(vmlinux=tmp_path / "vmlinux")
        one = host(mmap, options=options, same_boot=True, os_release=None)
        assert names(one, HOST_KERNEL, BASE + 64 * 5 + 1)[0][0] == "f5"
        assert (one.host.source == str(tmp_path / "vmlinux")) == right
        assert ("is not the kernel that was recorded" in one.host.note) != right
