"""Records the bundled recordings anew: `python -m kvmperf_magic.demo.bundle`, on a KVM host.

What is shipped names nothing of the machine it was made on: of the maps and names only those
that the samples need are kept, and the host binary is said to be in `/`.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kvmperf_magic.demo import stage
from kvmperf_magic.demo.image import HOST
from kvmperf_magic.demo.run import HostBaseline, MicroGuest
from kvmperf_magic.guests.discovery import find_vm
from kvmperf_magic.perfdata import features, records
from kvmperf_magic.perfdata.abi import Feature, PerfEventAttr
from kvmperf_magic.perfdata.attr import Attr
from kvmperf_magic.perfdata.reader import PerfFile, read
from kvmperf_magic.perfdata.writer import PerfDataWriter, WrittenEvent
from kvmperf_magic.sampler.options import SamplerOptions
from kvmperf_magic.sampler.process import SamplerProcess

_FREQUENCY = 400
_SECONDS = 4.0
_KEPT = ("host", "guest", "machines")  # of what our recorder notes


def main() -> None:
    stage.RECORDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, path in _recorded(Path(folder)):
            out = stage.RECORDINGS / f"{name}.data"
            trim(read(path), out, name)
            print(f"{out.name}: {out.stat().st_size:,} bytes")


def _recorded(folder: Path) -> Iterator[tuple[str, Path]]:
    cpus = stage.two_cpus()
    with HostBaseline(threads=2, cpus=cpus) as program:
        yield "host", _record(folder / "host", program.pid, guest=False)
    with MicroGuest(vcpus=2, name="calm", cpus=cpus) as vm:
        yield "calm", _record(folder / "calm", vm.pid, host=False)
    with MicroGuest(vcpus=4, name="crowded", cpus=cpus) as vm:
        yield "crowded", _record(folder / "crowded", vm.pid, host=False)
        yield "again", _record(folder / "again", vm.pid, host=False)
    with (
        MicroGuest(vcpus=2, name="web1", cpus=cpus) as vm,
        HostBaseline(threads=1, cpus=cpus) as program,
    ):
        yield "both", _record(folder / "both", vm.pid, program.pid)


def _record(path: Path, *pids: int, host: bool = True, guest: bool = True) -> Path:
    time.sleep(0.5)  # past its start
    options = SamplerOptions(
        events=["cpu-clock"],
        frequency=_FREQUENCY,
        pids=list(pids),
        callchain=host,
        host=host,
        guest=guest,
        output=str(path),
        duration=_SECONDS,
        machines=[find_vm(pids[0]).to_json()] if guest else [],
    )
    with SamplerProcess.start(options) as process:
        process.wait()
    return path


def trim(file: PerfFile, out: Path, name: str) -> None:
    """Write the samples of `file` to `out`, and of the rest what names them."""
    samples, sideband = file.samples, file.sideband
    sample_type = file.events[0].attr.sample_type
    events = [WrittenEvent(e.name, _attr(e.attr), e.ids.tolist()) for e in file.events]
    with PerfDataWriter(out, events) as writer:
        threads = {*samples.tid.tolist(), *samples.pid.tolist()}
        for row in sideband.comm.rows():
            if row["tid"] in threads:
                trailer = records.sample_id(sample_type, time=row["time"], id=events[0].ids[0])
                writer.write(records.comm(row["pid"], row["tid"], row["comm"], trailer=trailer))
        for row in sideband.mmap.rows():
            if Path(row["filename"]).name == HOST:
                writer.write(
                    records.mmap2(
                        row["pid"],
                        row["tid"],
                        row["addr"],
                        row["len"],
                        row["pgoff"],
                        f"/{HOST}",  # symfs makes it the shipped one
                        trailer=records.sample_id(sample_type, id=events[0].ids[0]),
                    )
                )
        words = samples.words
        sizes = (words[samples.record] >> np.uint64(51)).astype(np.int64)  # size field, in words
        for start, size in zip(samples.record.tolist(), sizes.tolist(), strict=True):
            writer.write(words[start : start + size].tobytes())
        noted = {key: file.kvmperf[key] for key in _KEPT}
        writer.finish(
            {
                Feature.HOSTNAME: features.encode_string("demo"),
                Feature.OSRELEASE: features.encode_string(file.header.os_release or ""),
                Feature.ARCH: features.encode_string("x86_64"),
                Feature.CMDLINE: features.encode_cmdline(["kvmperf", "record", name]),
                Feature.EVENT_DESC: features.encode_event_desc([e.desc for e in events]),
                Feature.KVMPERF: features.encode_kvmperf(noted),
            }
        )


def _attr(attr: Attr) -> PerfEventAttr:
    known = [field for field, *_ in PerfEventAttr._fields_ if not field.startswith("_")]
    raw = PerfEventAttr(**{field: getattr(attr, field) for field in known})
    raw.size = ctypes.sizeof(raw)
    return raw


if __name__ == "__main__":
    main()
