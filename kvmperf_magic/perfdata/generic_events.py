"""The kernel's generic events by number, with all of perf's spellings; the first is the one shown.

include/uapi/linux/perf_event.h, tools/perf/util/evsel.c and parse-events.c. The standard library
only: the recording process imports this.
"""

from __future__ import annotations

# enum perf_hw_id and perf_sw_ids; the first spelling is the one listed
HARDWARE = (
    ("cycles", "cpu-cycles"),
    ("instructions",),
    ("cache-references",),
    ("cache-misses",),
    ("branches", "branch-instructions"),
    ("branch-misses",),
    ("bus-cycles",),
    ("stalled-cycles-frontend", "idle-cycles-frontend"),
    ("stalled-cycles-backend", "idle-cycles-backend"),
    ("ref-cycles",),
)
SOFTWARE = (
    ("cpu-clock",),
    ("task-clock",),
    ("page-faults", "faults"),
    ("context-switches", "cs"),
    ("cpu-migrations", "migrations"),
    ("minor-faults",),
    ("major-faults",),
    ("alignment-faults",),
    ("emulation-faults",),
    ("dummy",),
    ("bpf-output",),
    ("cgroup-switches",),
)
# enum perf_hw_cache_id, _op_id, _op_result_id with perf's aliases
CACHES = (
    ("L1-dcache", "l1-d", "l1d", "L1-data"),
    ("L1-icache", "l1-i", "l1i", "L1-instruction"),
    ("LLC", "L2"),
    ("dTLB", "d-tlb", "Data-TLB"),
    ("iTLB", "i-tlb", "Instruction-TLB"),
    ("branch", "branches", "bpu", "btb", "bpc"),
    ("node",),
)
OPERATIONS = (
    ("loads", "load", "read"),
    ("stores", "store", "write"),
    ("prefetches", "prefetch", "speculative-read", "speculative-load"),
)
RESULTS = (("refs", "reference", "ops", "access"), ("misses", "miss"))
