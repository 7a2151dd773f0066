"""debuginfod: asked only where that is wanted, of a server on this machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from perfrecord import build, mmap_table
from test_sources import names, symbolizer

from kvmperf_magic import demo
from kvmperf_magic.errors import SymbolError
from kvmperf_magic.modes import HOST_KERNEL, HOST_USER
from kvmperf_magic.recording import open_recording
from kvmperf_magic.symbols import files
from kvmperf_magic.symbols.debuginfod import Debuginfod
from kvmperf_magic.symbols.elf import ElfImage
from kvmperf_magic.symbols.options import SymbolOptions
from kvmperf_magic.symbols.symbolizer import Symbolizer

SOURCE = """
__asm__(".globl _text\\n_text:\\n");
static int __attribute__((noinline)) hidden(int n) { __asm__ volatile(""); return n * 3; }
int main(int n, char **v) { for (;;) hidden(n); }
"""


@dataclass
class Server:
    url: str
    files: dict[str, bytes] = field(default_factory=dict)  # by path
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(delay: float = 0, cut: int = 0, status: int = 404) -> Iterator[Server]:
    """A server on this machine; `cut` bytes of each answer are kept back."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            time.sleep(delay)
            body = server.files.get(self.path)
            with suppress(BrokenPipeError, ConnectionResetError):  # nobody waits any more
                if body is None:
                    self.send_error(status)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) - cut])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


@dataclass
class Built:
    """A program whose symbols are in a file of their own."""

    path: Path
    build_id: str
    whole: bytes
    stripped: bytes
    debug: bytes
    address: int  # of hidden()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    flags = ("-g", "-no-pie", "-nostdlib", "-static", "-e", "main", "-Wl,--build-id=sha1")
    path = build(folder, "program", SOURCE, *flags)
    whole = path.read_bytes()
    table = ElfImage(whole).symbols()
    address = int(table.start[table.names.index("hidden")])
    subprocess.run(["objcopy", "--only-keep-debug", path, folder / "debug"], check=True)
    subprocess.run(["strip", path], check=True)
    stripped = path.read_bytes()
    image = ElfImage(path)
    assert not image.has_symtab
    return Built(path, image.build_id, whole, stripped, (folder / "debug").read_bytes(), address)


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a home of its own, and no servers but those of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DEBUGINFOD_URLS", "DEBUGINFOD_CACHE_PATH", "DEBUGINFOD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "debuginfod_client"


def mapped(built: Built, name: str, **options: object) -> Symbolizer:
    image = ElfImage(built.whole)
    text = image.section(".text")
    assert text is not None
    page = text.address & ~0xFFF
    mmap = mmap_table([(0, 1, page, 0x1000, text.offset & ~0xFFF, name, 2)])
    return symbolizer(
        mmap,
        SymbolOptions(**options),  # type: ignore[arg-type]
        build_ids={name: built.build_id},
    )


@pytest.mark.compiler
def test_symbols_and_programs_that_are_not_here(
    built: Built, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, gone = str(built.path), "/nowhere/program"
    with serving() as server:
        for name in (here, gone):
            one = mapped(built, name)
            assert names(one, HOST_USER, built.address)[0] == ("[unknown]", name)
        assert not server.asked, "off unless it is asked for"
        server.files = {
            f"/buildid/{built.build_id}/debuginfo": built.debug,
            f"/buildid/{built.build_id}/executable": built.stripped,
        }
        for name in (here, gone):
            one = mapped(built, name, debuginfod=server.url)
            assert names(one, HOST_USER, built.address)[0] == ("hidden", name)
            said = dict(zip(one.sources["dso"], one.sources["source"], strict=True))
            assert said[name] == str(clean / built.build_id / "debuginfo")
        assert sorted(server.asked) == sorted(server.files), "each is asked for once"
        # the variable that all clients know
        monkeypatch.setenv("DEBUGINFOD_URLS", f"http://127.0.0.1:9/ {server.url}")
        shutil.rmtree(clean)
        one = mapped(built, gone, debuginfod=True)
        assert names(one, HOST_USER, built.address)[0][0] == "hidden"
    # what came stays, without a server
    one = mapped(built, gone, debuginfod=server.url)
    assert names(one, HOST_USER, built.address)[0][0] == "hidden"


@pytest.mark.compiler
def test_what_nobody_has_is_said(built: Built) -> None:
    with serving() as server:
        one = mapped(built, str(built.path), debuginfod=[server.url])
        assert names(one, HOST_USER, built.address)[0][0] == "[unknown]"
        assert "debuginfod: no server has its debuginfo" in one.sources["note"][0]


@pytest.mark.compiler
def test_a_server_that_fails_is_not_asked_again(built: Built, clean: Path) -> None:
    other = "ab" * 20
    for how, said in (({"status": 500}, "answers 500"), ({"delay": 1.0}, "timed out")):
        with serving(**how) as server:  # type: ignore[arg-type]
            asked = Debuginfod([server.url], timeout=0.2)
            notes: list[str] = []
            for build_id in (built.build_id, other):
                assert asked.find(build_id, "debuginfo", notes) is None
            assert len(server.asked) == 1
            assert said in notes[0]
    notes = []
    assert Debuginfod(["http://127.0.0.1:9"]).find(other, "executable", notes) is None
    assert "is not to be had" in notes[0]
    assert not list(clean.rglob("*/*")) if clean.exists() else True


@pytest.mark.compiler
def test_nothing_but_the_file_itself_is_believed(built: Built, clean: Path) -> None:
    path = f"/buildid/{built.build_id}/debuginfo"
    other = build(built.path.parent, "other", SOURCE + "int more = 1;", "-g").read_bytes()
    for body, said in ((other, "another build"), (b"<html>", "ELF")):
        with serving() as server:
            server.files[path] = body
            one = mapped(built, str(built.path), debuginfod=server.url)
            assert names(one, HOST_USER, built.address)[0][0] == "[unknown]"
            assert said in one.sources["note"][0]
        shutil.rmtree(clean)
    with serving(cut=10) as server:
        server.files[path] = built.debug
        notes: list[str] = []
        assert Debuginfod([server.url]).find(built.build_id, "debuginfo", notes) is None
        assert f"{len(built.debug)} bytes were promised" in notes[0]
    assert not [one for one in clean.rglob("*") if one.is_file()]
    # a build-id from a recording is no way into other folders
    assert Debuginfod(["http://127.0.0.1:9"]).find("../../etc", "debuginfo", []) is None
    assert files.find("/nowhere", "", server=Debuginfod([server.url])).runtime is None


@pytest.mark.compiler
def test_kernels_come_from_there_too(built: Built) -> None:
    with serving() as server:
        server.files[f"/buildid/{built.build_id}/debuginfo"] = built.whole
        table = ElfImage(built.whole).symbols()
        slide = 0x200000
        text = table.marks["_text"] + slide
        one = symbolizer(
            mmap_table([(0, -1, text, 0x900, text, "[kernel.kallsyms]_text", 1)]),
            SymbolOptions(debuginfod=server.url),
            build_ids={"[kernel.kallsyms]": built.build_id},
        )
        assert names(one, HOST_KERNEL, built.address + slide)[0][0] == "hidden"


def test_servers_whose_signatures_would_have_to_be_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Fedora sets the variable; none of these is asked, for nothing here checks a signature."""
    signed = "ima:enforcing https://a.example/ https://b.example"
    monkeypatch.setenv("DEBUGINFOD_URLS", f"http://127.0.0.1:9 {signed} ima:ignore http://[::1]:9")
    notes: list[str] = []
    asked = Debuginfod.of(True)
    assert asked is not None
    assert asked.find("ab" * 20, "debuginfo", notes) is None
    assert re.findall(r"https?://\S+", notes[0]) == ["http://127.0.0.1:9", "http://[::1]:9"]
    monkeypatch.setenv("DEBUGINFOD_URLS", f"{signed} ima:ignore")
    with pytest.raises(SymbolError, match="wants signatures"):
        Debuginfod.of(True)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [(True, "DEBUGINFOD_URLS names no server"), ("perf.data", "no URL"), (["ftp://x"], "no URL")],
)
def test_servers_that_are_none(wanted: object, said: str) -> None:
    recording = Path(demo.__file__).parent / "recordings/host.data"
    with pytest.raises(SymbolError, match=said):
        len(open_recording(recording, cache=False, debuginfod=wanted))


def test_the_magic_has_the_switch(shell: InteractiveShell) -> None:
    shutil.copy(Path(demo.__file__).parent / "recordings/host.data", "host.data")
    with serving() as server:
        report = shell.run_line_magic(
            "kvm_report", f"host.data --no-cache --debuginfod {server.url} --sort dso"
        )
        assert "overhead" in repr(report)
        rows = json.loads(report.recording.symbols.to_json())
        assert {row["dso"] for row in rows}
