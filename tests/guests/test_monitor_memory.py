"""A guest whose VMM may not be looked into, read through its monitor: its word is the oracle."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from linuxguest import LinuxGuest

from kvmperf_magic.errors import KvmperfError, NotPermittedError, TargetError
from kvmperf_magic.guests import qmp
from kvmperf_magic.guests.access import monitors
from kvmperf_magic.guests.finding import find_kernel
from kvmperf_magic.guests.memory import ram_mappings
from kvmperf_magic.guests.monitormemory import MonitorMemory
from kvmperf_magic.guests.vmmmemory import VmmMemory

# prints the symbols of a VM as /proc/kallsyms does, then where they are from
OUTSIDER = """
import sys
from linuxguest import lines
from kvmperf_magic.guests.discovery import find_vm
from kvmperf_magic.guests.modules import joined
from kvmperf_magic.guests.watch import watch
machine = find_vm(int(sys.argv[1]))
watched = watch(machine)
watched.refresh()
if watched.kernel is not None:
    print(*lines(joined(watched.kernel.symbols, watched.kernel.modules())), sep="\\n")
print(machine.symbols_source)
"""


def as_outsider(pid: int) -> list[str]:
    """What somebody says who has no right to trace (root, but without that capability)."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("no setpriv")
    command = [
        *(setpriv, "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"),
        *(sys.executable, "-c", OUTSIDER, str(pid)),
    ]
    path = {"PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=path)
    return done.stdout.splitlines()


@pytest.mark.kernels
@pytest.mark.root
def test_every_symbol_through_the_monitor_alone(linux_guests: dict[str, LinuxGuest]) -> None:
    linux_guest = linux_guests["trixie"]
    told = as_outsider(linux_guest.pid)
    assert told.pop() == "guest memory, by its monitor: kallsyms tables, by their shape"
    assert told == linux_guest.kallsyms().decode().splitlines()
    assert linux_guest.qmp("query-status")["running"]
    # a guest that runs can be seen to run, from there too
    memory = MonitorMemory(linux_guest.pid, linux_guest.folder / "qmp", linux_guest.pid)
    kernel = find_kernel(memory, None).kernel
    assert kernel is not None
    before = kernel.ticking()
    end = time.monotonic() + 30
    while kernel.ticking() == before:
        assert time.monotonic() < end


def handed(pid: int) -> list[str]:
    """What QEMU has open that is ours."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if "memfd:kvmperf" in str(fd.readlink()):
                found.append(fd.name)
    return found


@pytest.mark.kernels
@pytest.mark.root
def test_a_guest_is_as_it_was(empty_guest: LinuxGuest) -> None:
    """What is read is what there is, nothing of it is other than before, the VM stays in its
    state, and QEMU keeps nothing of ours."""
    size = empty_guest.memory
    end = time.monotonic() + 60
    while "No bootable device" not in empty_guest.console():
        assert time.monotonic() < end
        time.sleep(0.02)
    empty_guest.qmp("stop")
    process = VmmMemory(empty_guest.pid)
    ram = ram_mappings(process.mappings(), size)
    everything = process.read(ram[0].start, size)
    assert everything.strip(b"\0")
    monitor = MonitorMemory(empty_guest.pid, empty_guest.folder / "qmp", empty_guest.pid)
    pieces = monitor.mappings()
    assert pieces[-1].end == size
    for piece in pieces:
        assert monitor.read(piece.start, piece.size + 1) == everything[piece.start : piece.end]
    assert monitor.read(size, 1) == b""
    pages = np.arange(pieces[-1].start, size + (8 << 20), 1 << 20).astype(np.uint64)
    rows = monitor.gather(pages, 64)
    expected = everything + bytes(16 << 20)
    assert [bytes(row) for row in rows] == [expected[at : at + 64] for at in pages.tolist()]
    monitor.rest()
    assert process.read(ram[0].start, size) == everything
    assert empty_guest.qmp("query-status")["status"] == "paused"
    # while a VM is paused, QEMU keeps what it was handed: then it is used again
    kept = handed(empty_guest.pid)
    assert monitor.read(0, 4096) == everything[:4096]
    monitor.rest()
    assert handed(empty_guest.pid) == kept
    empty_guest.qmp("cont")
    assert len(monitor.read(0, 4096)) == 4096
    monitor.rest()
    assert not handed(empty_guest.pid)


@pytest.mark.kernels
@pytest.mark.root
def test_a_monitor_that_others_have_is_not_waited_for(
    linux_guests: dict[str, LinuxGuest], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = linux_guests["bookworm"]
    monkeypatch.setattr(qmp, "_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(guest.folder / "qmp"))
        assert b"QMP" in other.recv(1000)
        with pytest.raises(NotPermittedError, match="another program is connected"):
            MonitorMemory(guest.pid, guest.folder / "qmp", guest.pid)


@contextmanager
def speaking(path: Path, said: bytes) -> Iterator[None]:
    """Somebody who says this, whatever is asked."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):  # who does not like it goes away
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join()


GREETING = b'{"QMP": {"version": {}}}\n'
OK = b'{"event": "RESET"}\n{"return": {}}\n'
SETS = b'{"return": []}\n'
UNRESERVED = b'{"return": [{"id": "ram", "reserve": true}, {"id": "more", "reserve": false}]}\n'
FILES = SETS + b"".join(b'{"return": {"fd": %d, "fdset-id": %d}}\n' % (i, i) for i in range(8))


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", "was closed"),
        (b"SSH-2.0\n", "speaks no QMP"),
        (b"[" * 100_000 + b"\n", "speaks no QMP"),
        (b'{"QMP"', "was closed"),
        (GREETING + b'{"error": {"class": "x", "desc": "not today"}}\n', "not today"),
        (GREETING + b'{"error": 7}\n', "7"),
        (GREETING + OK + b'{"return": 3}\n' * 9, "tells of no descriptor"),
        (GREETING + OK + SETS + b'{"return": 3}\n' * 9, "tells of no descriptor"),
        (GREETING + OK + FILES + SETS + b'{"return": "no memory here"}\n', "tells of no RAM"),
        (GREETING + OK + FILES + SETS + b'{"return": []}\n', "tells of no RAM"),
        (GREETING + OK + FILES + UNRESERVED + b'{"return": []}\n', "is not reserved"),
    ],
    ids=[
        "nothing",
        "text",
        "deep",
        "cut",
        "refused",
        "odd",
        "sets",
        "descriptors",
        "no-ram",
        "no-text",
        "unreserved",
    ],
)
def test_what_is_no_monitor_is_refused(tmp_path: Path, said: bytes, error: str) -> None:
    path = tmp_path / "qmp"
    with speaking(path, said), pytest.raises(KvmperfError, match=error):
        MonitorMemory(1, path, None)


@pytest.mark.parametrize("said", [b'{"event": "X"}\n', b" "], ids=["events", "half a line"])
def test_a_monitor_that_never_comes_to_the_point(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something comes all the time, but no answer."""
    monkeypatch.setattr(qmp, "_SECONDS", 0.3)
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def talk() -> None:
            with listening.accept()[0] as other, suppress(OSError):
                while True:
                    other.sendall(said)
                    time.sleep(0.01)

        talking = threading.Thread(target=talk, daemon=True)
        talking.start()
        with pytest.raises(NotPermittedError, match="does not answer"):
            qmp.Qmp(path, None)
        talking.join()


def test_a_monitor_of_another_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with speaking(path, GREETING), pytest.raises(NotPermittedError, match="another process's"):
        MonitorMemory(1, path, 1)
    with pytest.raises(NotPermittedError, match="No such file"):
        MonitorMemory(1, tmp_path / "nothing", 1)
    with pytest.raises(TargetError, match="has ended"):
        MonitorMemory(1 << 22, tmp_path / "nothing", 1)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("-qmp unix:/run/a,server=on,wait=off", [("/run/a", True)]),
        ("--qmp=unix:/run/a,,b,server", [("/run/a,b", True)]),
        ("-qmp tcp:localhost:4444,server", []),
        ("-qmp unix:relative,server", []),
        ("-chardev socket,id=m,path=/run/c,server=on -qmp chardev:m", [("/run/c", True)]),
        ("-mon chardev=m,mode=control -chardev socket,id=m,path=/c", [("/c", True)]),
        ("-mon chardev=m,mode=readline -chardev socket,id=m,path=/c", []),
        (
            '-object {"qom-type":"secret","id":"masterKey0","file":"/v/d-1/key.aes"}',
            [("/v/d-1/monitor.sock", False)],
        ),
        ("-object secret,id=masterKey0,format=raw,file=/v/d/key", [("/v/d/monitor.sock", False)]),
        ("-object secret,id=other,file=/v/d/key -object {broken", []),
    ],
)
def test_sockets_that_a_command_line_tells_of(command: str, found: list[tuple[str, bool]]) -> None:
    told = monitors(["qemu-system-x86_64", *command.split()])
    assert [(str(path), its_own) for path, its_own in told] == found
