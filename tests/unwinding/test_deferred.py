"""User callchains that come in records of their own."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from chains import raw
from stacked import BASE, ID, PID, event, sample, write

from kvmperf_magic.perfdata import records as r
from kvmperf_magic.perfdata.abi import (
    CONTEXT_KERNEL,
    CONTEXT_USER,
    CONTEXT_USER_DEFERRED,
    MISC_KERNEL,
    MISC_USER,
    RecordType,
)
from kvmperf_magic.recording import open_recording

KERNEL = (0xFFFFFFFF81000010, 0xFFFFFFFF81000020)
USER = (0x401000, 0x402000, 0x403000)


def later(
    time: int, cookie: int, ips: tuple[int, ...], *, tid: int = PID, count: int = -1
) -> bytes:
    words = (CONTEXT_USER, *ips)
    body = struct.pack("<QQ", cookie, len(words) if count < 0 else count)
    body += struct.pack(f"<{len(words)}Q", *words)
    trailer = r.sample_id(BASE, pid=PID, tid=tid, time=time, id=ID)
    return r.record(RecordType.CALLCHAIN_DEFERRED, MISC_USER, body + trailer)


def waiting(time: int, cookie: int, *, tid: int = PID) -> bytes:
    chain = (CONTEXT_KERNEL, *KERNEL, CONTEXT_USER_DEFERRED, cookie)
    return sample(time, chain, ip=KERNEL[0], misc=MISC_KERNEL, tid=tid)


KERNEL_PART = [CONTEXT_KERNEL, *KERNEL]


def test_each_finds_its_own(tmp_path: Path) -> None:
    other = PID + 1
    path = write(
        tmp_path / "deferred.data",
        event(),
        [
            waiting(1000, 5),
            waiting(1010, 5),  # a second time in the same system call
            waiting(1020, 5, tid=other),  # the same cookie of another thread
            waiting(1030, 6),  # its record was lost
            later(1100, 5, USER),
            later(1110, 5, USER[1:], tid=other),
            waiting(1200, 9),
            sample(1300, (CONTEXT_USER, 0x400100)),
            later(1400, 9, USER[:1]),
        ],
    )
    assert raw(path) == [
        [*KERNEL_PART, CONTEXT_USER, *USER],
        [*KERNEL_PART, CONTEXT_USER, *USER],
        [*KERNEL_PART, CONTEXT_USER, *USER[1:]],
        [*KERNEL_PART, CONTEXT_USER_DEFERRED, 6],
        [*KERNEL_PART, CONTEXT_USER, USER[0]],
        [CONTEXT_USER, 0x400100],
    ]


def test_frames_and_modes(tmp_path: Path) -> None:
    path = write(tmp_path / "deferred.data", event(), [waiting(1000, 5), later(1100, 5, USER)])
    chains = open_recording(path).callchains
    assert chains.ip.tolist() == [*KERNEL, *USER]
    assert len(np.unique(chains.mode[:2])) == 1
    assert len(np.unique(chains.mode[2:])) == 1
    assert chains.mode[0] != chains.mode[2]


def test_a_lost_record_leaves_the_kernel_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "deferred.data", event(), [waiting(1000, 5)])
    assert open_recording(path).callchains.ip.tolist() == [*KERNEL]


def test_a_record_cut_short_is_told(tmp_path: Path) -> None:
    path = write(
        tmp_path / "deferred.data",
        event(),
        [waiting(1000, 5), later(1100, 5, USER, count=60000), later(1200, 7, (), count=2**63)],
    )
    recording = open_recording(path)
    assert raw(path) == [[*KERNEL_PART, CONTEXT_USER_DEFERRED, 5]]
    assert any("deferred callchains" in str(one) for one in recording._source.file.damage)
