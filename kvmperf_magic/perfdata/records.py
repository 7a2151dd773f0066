"""Encoders of perf records: those that a recorder writes itself, beside the kernel's own.

Layouts are those of include/uapi/linux/perf_event.h (enum perf_event_type) and
tools/perf/lib/include/perf/event.h. Little endian, the standard library only: the recording
process imports this. Every encoder gives one whole record, header included, size a multiple
of 8. `trailer` is what `sample_id()` gives for the attr that the record stands under; it is
empty where the attr has no SAMPLE_ID_ALL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kvmperf_magic.perfdata.abi import (
    MISC_COMM_EXEC,
    MISC_GUEST_KERNEL,
    MISC_KERNEL,
    MISC_MMAP_BUILD_ID,
    MISC_USER,
    PerfEventAttr,
    RecordType,
    SampleType,
)

MAX_RECORD = 0xFFF8  # perf_event_header.size is a u16, and records are 8-aligned
COMM_LENGTH = 16  # TASK_COMM_LEN, the NUL included
PATH_MAX = 4096
PROT_READ_EXEC = 5
MAP_PRIVATE = 2
MISC_BUILD_ID_SIZE = 1 << 15  # PERF_RECORD_MISC_BUILD_ID_SIZE: byte 20 holds the length
BUILD_ID_BYTES = 20
EVENT_UPDATE_NAME = 2  # PERF_EVENT_UPDATE__NAME
NOTE_MAGIC = b"KVMPERF\0"
# notes about guests, of which there may be any number: their symbols, what their CPUs ran
GUEST_MAGIC, TASKS_MAGIC = b"KVMGUEST", b"KVMTASKS"

_U64 = 0xFFFFFFFFFFFFFFFF
_U32 = 0xFFFFFFFF


def record(type: int, misc: int, body: bytes) -> bytes:
    """A record of this body, padded to 8 bytes; ValueError if it is longer than a record can be."""
    size = 8 + len(body)
    padded = -(-size // 8) * 8
    if padded > MAX_RECORD:
        raise ValueError(f"a record of {size} bytes: the longest is {MAX_RECORD}")
    return struct.pack("<IHH", type, misc, padded) + body + bytes(padded - size)


def sample_id(
    sample_type: int,
    *,
    pid: int = 0,
    tid: int = 0,
    time: int = 0,
    id: int = 0,
    stream_id: int = 0,
    cpu: int = 0,
) -> bytes:
    """The trailer of records other than SAMPLE (struct sample_id), for this sample_type.

    Synthesised records carry zeros, as perf's do: they hold from the beginning.
    """
    parts = []
    if sample_type & SampleType.TID:
        parts.append(struct.pack("<II", pid & _U32, tid & _U32))
    if sample_type & SampleType.TIME:
        parts.append(struct.pack("<Q", time))
    if sample_type & SampleType.ID:
        parts.append(struct.pack("<Q", id))
    if sample_type & SampleType.STREAM_ID:
        parts.append(struct.pack("<Q", stream_id))
    if sample_type & SampleType.CPU:
        parts.append(struct.pack("<II", cpu & _U32, 0))
    if sample_type & SampleType.IDENTIFIER:
        parts.append(struct.pack("<Q", id))
    return b"".join(parts)


def _name(text: str, longest: int, align: int = 8) -> bytes:
    """A NUL-terminated name of at most `longest` bytes, padded to `align`."""
    raw = text.encode("utf-8", "surrogateescape").split(b"\0")[0][: longest - 1] + b"\0"
    return raw + bytes(-len(raw) % align)


def comm(pid: int, tid: int, name: str, *, exec: bool = False, trailer: bytes = b"") -> bytes:
    """PERF_RECORD_COMM: the thread is called `name` (cut to 15 bytes) from now on."""
    body = struct.pack("<II", pid & _U32, tid & _U32) + _name(name, COMM_LENGTH)
    return record(RecordType.COMM, MISC_COMM_EXEC if exec else 0, body + trailer)


def mmap(
    pid: int,
    tid: int,
    addr: int,
    length: int,
    pgoff: int,
    filename: str,
    *,
    misc: int = MISC_USER,
    trailer: bytes = b"",
) -> bytes:
    """PERF_RECORD_MMAP: `length` bytes at `addr` are `filename` from byte `pgoff` on."""
    body = struct.pack("<IIQQQ", pid & _U32, tid & _U32, addr, length & _U64, pgoff)
    return record(RecordType.MMAP, misc, body + _name(filename, PATH_MAX) + trailer)


def mmap2(
    pid: int,
    tid: int,
    addr: int,
    length: int,
    pgoff: int,
    filename: str,
    *,
    major: int = 0,
    minor: int = 0,
    inode: int = 0,
    generation: int = 0,
    build_id: bytes = b"",
    prot: int = PROT_READ_EXEC,
    flags: int = MAP_PRIVATE,
    misc: int = MISC_USER,
    trailer: bytes = b"",
) -> bytes:
    """PERF_RECORD_MMAP2; with a `build_id` (at most 20 bytes) it stands in place of the inode."""
    body = struct.pack("<IIQQQ", pid & _U32, tid & _U32, addr, length & _U64, pgoff)
    if build_id:
        misc |= MISC_MMAP_BUILD_ID
        body += struct.pack("<BxH20s", len(build_id), 0, build_id)
    else:
        body += struct.pack("<IIQQ", major, minor, inode, generation)
    body += struct.pack("<II", prot, flags) + _name(filename, PATH_MAX)
    return record(RecordType.MMAP2, misc, body + trailer)


def kernel_map(
    start: int,
    length: int,
    *,
    machine_pid: int = -1,
    reference: str = "_text",
    reference_address: int | None = None,
    trailer: bytes = b"",
) -> bytes:
    """The map of a kernel's text, as perf wants it to name kernel symbols.

    tools/perf/util/synthetic-events.c: __perf_event__synthesize_kernel_mmap(). The name ends
    with a reference symbol whose address is pgoff, from which perf works out a relocation.
    `machine_pid` is -1 for the host, the VMM's pid for a guest.
    """
    if machine_pid == -1:
        name, misc = "[kernel.kallsyms]", MISC_KERNEL
    else:
        name, misc = f"[guest.kernel.kallsyms.{machine_pid}]", MISC_GUEST_KERNEL
    pgoff = start if reference_address is None else reference_address
    return mmap(machine_pid, 0, start, length, pgoff, name + reference, misc=misc, trailer=trailer)


def fork(pid: int, ppid: int, tid: int, ptid: int, time: int = 0, trailer: bytes = b"") -> bytes:
    """PERF_RECORD_FORK: thread `ptid` of `ppid` made thread `tid` of `pid`."""
    body = struct.pack("<IIIIQ", pid & _U32, ppid & _U32, tid & _U32, ptid & _U32, time)
    return record(RecordType.FORK, 0, body + trailer)


def exit(pid: int, ppid: int, tid: int, ptid: int, time: int = 0, trailer: bytes = b"") -> bytes:
    """PERF_RECORD_EXIT."""
    body = struct.pack("<IIIIQ", pid & _U32, ppid & _U32, tid & _U32, ptid & _U32, time)
    return record(RecordType.EXIT, 0, body + trailer)


def lost(id: int, count: int, trailer: bytes = b"") -> bytes:
    """PERF_RECORD_LOST: `count` records of the buffer were not written."""
    return record(RecordType.LOST, 0, struct.pack("<QQ", id, count) + trailer)


def lost_samples(count: int, trailer: bytes = b"") -> bytes:
    """PERF_RECORD_LOST_SAMPLES."""
    return record(RecordType.LOST_SAMPLES, 0, struct.pack("<Q", count) + trailer)


def throttle(
    time: int, id: int, stream_id: int = 0, *, stopped: bool = True, trailer: bytes = b""
) -> bytes:
    """PERF_RECORD_THROTTLE, or UNTHROTTLE where `stopped` is false."""
    kind = RecordType.THROTTLE if stopped else RecordType.UNTHROTTLE
    return record(kind, 0, struct.pack("<QQQ", time, id, stream_id) + trailer)


def sample(
    sample_type: int,
    *,
    misc: int = MISC_USER,
    ip: int = 0,
    pid: int = 0,
    tid: int = 0,
    time: int = 0,
    addr: int = 0,
    id: int = 0,
    stream_id: int = 0,
    cpu: int = 0,
    period: int = 0,
    callchain: Sequence[int] = (),
) -> bytes:
    """PERF_RECORD_SAMPLE with the fields up to the callchain (its words leaf first, markers too).

    ValueError for a sample_type that asks for anything behind, or for READ.
    """
    known = (
        SampleType.IDENTIFIER | SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.ADDR
    )
    known |= SampleType.ID | SampleType.STREAM_ID | SampleType.CPU | SampleType.PERIOD
    known |= SampleType.CALLCHAIN
    if sample_type & ~known:
        raise ValueError(f"samples of type {sample_type:#x} are not written here")
    tasks = (pid & _U32) | (tid & _U32) << 32
    fields = (
        (SampleType.IDENTIFIER, id),
        (SampleType.IP, ip),
        (SampleType.TID, tasks),
        (SampleType.TIME, time),
        (SampleType.ADDR, addr),
        (SampleType.ID, id),
        (SampleType.STREAM_ID, stream_id),
        (SampleType.CPU, cpu & _U32),
        (SampleType.PERIOD, period),
    )
    words = [value for bit, value in fields if sample_type & bit]
    if sample_type & SampleType.CALLCHAIN:
        words += [len(callchain), *callchain]
    return record(RecordType.SAMPLE, misc, struct.pack(f"<{len(words)}Q", *words))


def finished_round() -> bytes:
    """PERF_RECORD_FINISHED_ROUND: every buffer was drained once since the last of these.

    perf sorts and delivers what came before the round before, so a long recording wants them.
    """
    return record(RecordType.FINISHED_ROUND, 0, b"")


class IdIndexEntry(NamedTuple):
    """One event id: which counter it is, and the guest it belongs to (0 and -1: none)."""

    id: int
    idx: int = 0
    cpu: int = -1
    tid: int = -1
    machine_pid: int = 0
    vcpu: int = -1


def id_index(entries: Iterable[IdIndexEntry]) -> bytes:
    """PERF_RECORD_ID_INDEX: as many records as the entries need, one behind the other.

    The machine_pid and vcpu part (struct id_index_entry_2, perf 6.0) is written where any
    entry names a guest.
    """
    entries = list(entries)
    guests = any(e.machine_pid or e.vcpu >= 0 for e in entries)
    most = (MAX_RECORD - 16) // (48 if guests else 32)
    records = []
    for i in range(0, len(entries), most):
        part = entries[i : i + most]
        words = [len(part)]
        for e in part:
            words += [e.id, e.idx, e.cpu & _U64, e.tid & _U64]
        if guests:
            for e in part:
                words += [e.machine_pid, e.vcpu & _U64]
        records.append(record(RecordType.ID_INDEX, 0, struct.pack(f"<{len(words)}Q", *words)))
    return b"".join(records)


def build_id(build_id: bytes, filename: str, *, pid: int = -1, misc: int = MISC_USER) -> bytes:
    """PERF_RECORD_HEADER_BUILD_ID: `filename` had this build id (at most 20 bytes).

    The same layout is an entry of the build-id table. `pid` is -1 on the host and the VMM's
    pid for a guest's file; `misc` tells kernel from user and host from guest.
    """
    if not 0 < len(build_id) <= BUILD_ID_BYTES:
        raise ValueError(f"a build id of {len(build_id)} bytes: 1 to {BUILD_ID_BYTES} are allowed")
    body = struct.pack("<i20sB3x", pid, build_id, len(build_id)) + _name(filename, PATH_MAX, 64)
    return record(RecordType.HEADER_BUILD_ID, misc | MISC_BUILD_ID_SIZE, body)


def header_attr(attr: PerfEventAttr, ids: Sequence[int]) -> bytes:
    """PERF_RECORD_HEADER_ATTR: an event of a stream, and the ids its samples carry."""
    body = bytes(attr) + struct.pack(f"<{len(ids)}Q", *ids)
    return record(RecordType.HEADER_ATTR, 0, body)


def event_update_name(id: int, name: str) -> bytes:
    """PERF_RECORD_EVENT_UPDATE: the event with this id is called `name`."""
    body = struct.pack("<QQ", EVENT_UPDATE_NAME, id) + _name(name, PATH_MAX)
    return record(RecordType.EVENT_UPDATE, 0, body)


def header_feature(feature: int, body: bytes) -> bytes:
    """PERF_RECORD_HEADER_FEATURE: in a stream, what a file has as a feature section."""
    return record(RecordType.HEADER_FEATURE, 0, struct.pack("<Q", feature) + body)


def tracing_data(payload: bytes) -> bytes:
    """PERF_RECORD_HEADER_TRACING_DATA: the formats of a stream's tracepoints, tracingdata.py.

    The payload follows the record and is not counted in its size (it may be longer than a record
    can be). perf's own record is 12 bytes long; every reader goes by its size, and with 16 all
    that follows stays on words.
    """
    padding = bytes(-len(payload) % 8)
    size = len(payload) + len(padding)
    return record(RecordType.HEADER_TRACING_DATA, 0, struct.pack("<I", size)) + payload + padding


def note(body: bytes, magic: bytes = NOTE_MAGIC) -> bytes:
    """What our recorder wants to tell (features.py: encode_kvmperf()), among the records.

    It stands in HEADER_EVENT_TYPE records, which every perf steps over without looking; perf
    refuses a HEADER_FEATURE of a number that it does not know. As many as the body needs, each
    {magic, u32 part, u32 parts, bytes}. Written early, it is there though the recorder is killed.
    """
    most = MAX_RECORD - 24
    pieces = [body[i : i + most] for i in range(0, len(body), most)]
    return b"".join(
        record(
            RecordType.HEADER_EVENT_TYPE,
            0,
            magic + struct.pack("<II", i, len(pieces)) + piece,
        )
        for i, piece in enumerate(pieces)
    )
