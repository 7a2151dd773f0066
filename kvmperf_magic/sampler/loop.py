"""The recording loop: wait, move what the rings hold to the sink, flush, say how it goes.

Nothing is decoded here. Each pass reads every ring once and ends with FINISHED_ROUND, from which
perf knows how far records can be sorted (tools/perf/util/ordered-events.c).
"""

from __future__ import annotations

import contextlib
import re
import select
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from kvmperf_magic.perfdata import records
from kvmperf_magic.perfdata.abi import MISC_USER, RecordType
from kvmperf_magic.sampler.counters import Counters
from kvmperf_magic.sampler.ring import Ring
from kvmperf_magic.sampler.sinks import Sink, StreamSink

FLUSH_SECONDS = 0.5  # the most that a kill -9 may cost
STREAM_SECONDS = 0.1
TELL_SECONDS = 0.5
_LOOKED_AT = 128  # records of a drained piece whose headers are walked
_COUNTED = 4096  # records of a recording that are all walked: a short one is counted, not estimated
_ROUND = records.finished_round()


@dataclass
class Progress:
    """What is known without decoding. `samples` is counted as long as there are few, then
    estimated from the mean size of a record."""

    elapsed: float = 0.0
    bytes: int = 0
    samples: int = 0
    lost: int = 0
    throttled: int = 0
    dropped: int = 0


class RecordingLoop:
    """Moves records until someone says stop.

    `wake` maps file descriptors to functions called when they become readable (commands, ends of
    processes); each gives True to end the recording.
    """

    def __init__(
        self,
        counters: Counters,
        sink: Sink,
        wake: dict[int, Callable[[], bool]],
        report: Callable[[Progress], None],
    ) -> None:
        self.counters = counters
        self.sink = sink
        self.progress = Progress()
        self._wake = wake
        self._report = report
        self._poll = select.poll()
        self._waking: dict[int, Ring] = {}
        for ring in counters.rings.values():
            self._poll.register(ring.fds[0], select.POLLIN)
            self._waking[ring.fds[0]] = ring
        for fd in wake:
            self._poll.register(fd, select.POLLIN)
        trailer = records.sample_id(counters.events[0].attr.sample_type)
        # looked for as bytes, for to walk all records would cost as much as all the rest
        self._throttle = records.throttle(0, 0, trailer=trailer)[:8]
        self._lost = None
        if not counters.count_lost:
            self._lost = re.compile(
                re.escape(records.lost(0, 0, trailer)[:8]) + rb"(?s:.{8}(.{8}))"
            )
        self._lost_records = 0
        self._walked = 0
        # of a mapping that begins while we record: device and inode, then the name
        self._mmap2_head = struct.pack("<IH", RecordType.MMAP2, MISC_USER)
        self._mmap2 = re.compile(
            re.escape(self._mmap2_head) + rb"(?s:.{34}(.{16}).{16})(/[^\0]+)\0"
        )
        self.mapped: dict[bytes, bytes] = {}
        self._started = time.monotonic()

    def run(self, duration: float | None) -> None:
        """Until `duration` seconds are over, a waker or the target's end says stop.

        Raises what the sink raises (FileError on a full disk, BrokenPipeError).
        """
        self._started = time.monotonic()
        every = STREAM_SECONDS if isinstance(self.sink, StreamSink) else FLUSH_SECONDS
        ends = None if duration is None else self._started + duration
        due = self._started + every
        tell = self._started + TELL_SECONDS
        stop = False
        while not stop:
            now = time.monotonic()
            until = due if ends is None else min(due, ends)
            stop = self._wait(max(0.0, until - now))
            self.drain()
            now = time.monotonic()
            if now >= due:
                due = now + every
                self.sink.flush()
                if now >= tell:
                    tell = now + TELL_SECONDS
                    self.update()
                    self._report(self.progress)
                    stop = stop or self.counters.target.all_ended()
            stop = stop or (ends is not None and now >= ends)

    def _wait(self, seconds: float) -> bool:
        if isinstance(self.sink, StreamSink):
            self.sink.flush()
            if self.sink.waiting:
                self._poll.register(self.sink.fd, select.POLLOUT)
            else:
                self._unregister(self.sink.fd)
        stop = False
        for fd, mask in self._poll.poll(seconds * 1000):
            if fd in self._wake:
                stop = self._wake[fd]() or stop
            elif fd in self._waking and mask & (select.POLLHUP | select.POLLERR):
                self._change_waker(fd)
        return stop

    def _change_waker(self, fd: int) -> None:
        """The thread behind this counter ended: let the next one on the same ring wake us.

        When all have ended the regular passes go on and nothing wakes between them.
        """
        ring = self._waking.pop(fd)
        self._unregister(fd)
        left = [f for f in ring.fds if f != fd]
        ring.fds = left
        if left:
            self._poll.register(left[0], select.POLLIN)
            self._waking[left[0]] = ring

    def _unregister(self, fd: int) -> None:
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)

    def drain(self) -> None:
        """One pass over all rings."""
        moved = False
        for ring in self.counters.rings.values():
            chunks = ring.chunks()
            if chunks:
                moved = True
                self.sink.write(*chunks)
                self._count(chunks)
                ring.release()
        if moved:
            self.sink.write(_ROUND)

    def _count(self, chunks: list[memoryview]) -> None:
        data = b"".join(chunks)
        # a search for bytes is far cheaper than one for a pattern, and mostly all there is to do
        self.progress.throttled += data.count(self._throttle)
        if self._mmap2_head in data:
            for met in self._mmap2.finditer(data):
                self.mapped[met[2]] = met[1]
        if self._lost is not None:
            for met in self._lost.finditer(data):
                self._lost_records += int.from_bytes(met[1], "little")
        at = samples = 0
        for _ in range(max(_LOOKED_AT, _COUNTED - self._walked)):
            if at + 8 > len(data):
                break
            kind, _misc, size = struct.unpack_from("<IHH", data, at)
            samples += kind == RecordType.SAMPLE
            self._walked += 1
            at += size
        self.progress.samples += round(samples * len(data) / max(at, 1))

    def update(self) -> None:
        """Bring `progress` up to date."""
        self.progress.elapsed = time.monotonic() - self._started
        self.progress.bytes = self.sink.size
        self.progress.dropped = self.sink.dropped
        self.progress.lost = self._lost_records + self.counters.lost()
