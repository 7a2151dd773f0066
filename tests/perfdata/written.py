"""A small recording made with our own writer, every record known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvmperf_magic.perfdata import features as fe
from kvmperf_magic.perfdata import records as r
from kvmperf_magic.perfdata.abi import (
    ATTR_SIZE,
    CONTEXT_USER,
    MISC_GUEST_KERNEL,
    MISC_GUEST_USER,
    MISC_KERNEL,
    MISC_USER,
    AttrFlag,
    EventType,
    Feature,
    PerfEventAttr,
    ReadFormat,
    SampleType,
)
from kvmperf_magic.perfdata.writer import PerfDataWriter, PipeWriter, WrittenEvent

SAMPLE_TYPE = (
    SampleType.IDENTIFIER | SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.CPU
) | (SampleType.PERIOD | SampleType.CALLCHAIN)
HOST, VMM, VCPU = 100, 77, 78
GUEST_TEXT = 0xFFFFFFFF82000000


@dataclass(frozen=True)
class Written:
    misc: int
    time: int
    pid: int
    tid: int
    cpu: int
    ip: int
    period: int
    event: int
    chain: tuple[int, ...] = ()


def event(name: str, config: int, ids: tuple[int, ...]) -> WrittenEvent:
    attr = PerfEventAttr()
    attr.type, attr.size, attr.config = EventType.SOFTWARE, ATTR_SIZE, config
    attr.sample_period, attr.sample_type = 1_000_000, SAMPLE_TYPE
    attr.read_format = ReadFormat.ID | ReadFormat.LOST
    attr.flags = AttrFlag.SAMPLE_ID_ALL | AttrFlag.MMAP | AttrFlag.COMM | AttrFlag.TASK
    return WrittenEvent(name, attr, ids)


EVENTS = [event("cpu-clock", 0, (11, 12)), event("task-clock", 1, (21, 22))]
SAMPLES = [
    Written(
        misc=(MISC_USER, MISC_KERNEL, MISC_GUEST_KERNEL, MISC_GUEST_USER)[i % 4],
        time=10**12 + 1000 * (i // 2),  # pairs of one time
        pid=HOST if i % 4 < 2 else VMM,
        tid=HOST if i % 4 < 2 else VCPU,
        cpu=i % 2,
        ip=(0x400100 + i, 0xFFFFFFFF81000010 + i, GUEST_TEXT + 16 * i, 0x401000 + i)[i % 4],
        period=10 + i,
        event=i % 3 % 2,
        chain=(CONTEXT_USER, 0x400100 + i, 0x400200) if i % 4 == 0 else (),
    )
    for i in range(40)
]
TRAILER = r.sample_id(SAMPLE_TYPE)
NOTE = {"machines": [{"pid": VMM, "name": "web"}], "sides": ["guest"]}


def sample(one: Written) -> bytes:
    return r.sample(
        SAMPLE_TYPE,
        misc=one.misc,
        ip=one.ip,
        pid=one.pid,
        tid=one.tid,
        time=one.time,
        id=EVENTS[one.event].ids[one.cpu],
        cpu=one.cpu,
        period=one.period,
        callchain=one.chain,
    )


def all_records() -> Iterator[bytes]:
    """Synthesised records, then the samples, the later CPU's first as ring buffers give them."""
    yield r.kernel_map(0xFFFFFFFF81000000, 0xE00000, trailer=TRAILER)
    yield r.kernel_map(GUEST_TEXT, 0xE00000, machine_pid=VMM, trailer=TRAILER)
    yield r.comm(HOST, HOST, "hello", trailer=TRAILER)
    yield r.comm(VMM, VCPU, "CPU 0/KVM", trailer=TRAILER)
    yield r.mmap2(HOST, HOST, 0x400000, 0x1000, 0, "/bin/hello", inode=5, trailer=TRAILER)
    yield r.mmap2(
        VMM, VMM, 0x500000, 0x1000, 4096, "/bin/vmm", build_id=b"\1" * 20, trailer=TRAILER
    )
    yield r.id_index([r.IdIndexEntry(id, i, i % 2, -1) for i, id in enumerate((11, 12, 21, 22))])
    yield r.note(fe.encode_kvmperf(NOTE))
    for cpu in (1, 0):
        yield from (sample(one) for one in SAMPLES if one.cpu == cpu)
    later = r.sample_id(SAMPLE_TYPE, pid=HOST, tid=HOST, time=10**12 + 10**6, id=11)
    yield r.lost(11, 3, later)
    yield r.lost_samples(5, later)
    yield r.throttle(10**12, 11, trailer=later)
    yield r.finished_round()


FEATURES = {
    Feature.HOSTNAME: fe.encode_string("höst"),
    Feature.OSRELEASE: fe.encode_string("6.18.0-test"),
    Feature.VERSION: fe.encode_string("kvmperf 0.1"),
    Feature.ARCH: fe.encode_string("x86_64"),
    Feature.NRCPUS: fe.encode_nrcpus(2, 2),
    Feature.CPUDESC: fe.encode_string("Some CPU"),
    Feature.CPUID: fe.encode_string("GenuineIntel,6,1,2"),
    Feature.TOTAL_MEM: fe.encode_total_mem(123456),
    Feature.CMDLINE: fe.encode_cmdline(["kvmperf", "record", "--guest"]),
    Feature.EVENT_DESC: fe.encode_event_desc([e.desc for e in EVENTS]),
    Feature.CPU_TOPOLOGY: fe.encode_cpu_topology(
        fe.CpuTopology(["0-1"], ["0", "1"], [0, 1], [0, 0], ["0-1"], [0, 0])
    ),
    Feature.NUMA_TOPOLOGY: fe.encode_numa_topology([fe.NumaNode(0, 1000, 500, "0-1")]),
    Feature.PMU_MAPPINGS: fe.encode_pmu_mappings({1: "software", 2: "tracepoint"}),
    Feature.SAMPLE_TIME: fe.encode_sample_time(SAMPLES[0].time, SAMPLES[-1].time),
    Feature.CLOCKID: fe.encode_clockid(1),
    Feature.CLOCK_DATA: fe.encode_clock_data(fe.ClockData(1, 10**18, 10**12)),
    Feature.BUILD_ID: fe.encode_build_ids(
        [
            fe.BuildId(-1, MISC_USER, "ab" * 20, "/bin/hello"),
            fe.BuildId(VMM, MISC_GUEST_KERNEL, "cd" * 20, f"[guest.kernel.kallsyms.{VMM}]"),
        ]
    ),
    Feature.KVMPERF: fe.encode_kvmperf(NOTE),
}


def write(writer: PerfDataWriter | PipeWriter, *, finish: bool = True) -> None:
    for record in all_records():
        writer.write(record)
    writer.flush()
    if finish:
        writer.finish(FEATURES)
