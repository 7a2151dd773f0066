"""Reports and trees against a plain loop over the samples, on profiles drawn by hypothesis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import GUEST_MODES, HOST_MODES
from kvmperf_magic.profile.groups import group_rows
from kvmperf_magic.profile.profile import Profile, Sample, profile_of
from kvmperf_magic.profile.report import SAMPLE_KEYS, SORT_KEYS, report
from kvmperf_magic.profile.tree import KINDS, CallTree, build_tree
from kvmperf_magic.table import Categorical

frames = st.tuples(
    st.sampled_from(["main", "lock", "read", "[unknown]"]),
    st.sampled_from(["[kernel.kallsyms]", "/usr/lib/libc.so"]),
    st.sampled_from(["host-kernel", "host-user", "guest-kernel", "guest-user"]),
)
# what a guest's CPU ran: its command, its pid, and how sure that is
processes = st.sampled_from(
    [("", -1, 0.0), ("dd", 7, 1.0), ("dd", 7, 0.5), ("dd", 8, 1.0), ("", 9, 0.5)]
)
plain_samples = st.builds(
    Sample,
    frames=st.lists(frames, min_size=1, max_size=6),
    period=st.integers(0, 1 << 20),
    time=st.integers(0, 1000),
    comm=st.sampled_from(["sh", "lock", "CPU 0/KVM"]),
    pid=st.integers(-1, 2),
    tid=st.integers(0, 4_194_304),
    cpu=st.integers(0, 1),
    vcpu=st.integers(-1, 1),
    machine=st.sampled_from(["host", "vm1", "vm2"]),
    event=st.sampled_from(["cycles", "cpu-clock"]),
)
samples = st.builds(
    lambda sample, ran: replace(sample, guest_comm=ran[0], guest_pid=ran[1], guest_sure=ran[2]),
    plain_samples,
    processes,
)
profiles = st.lists(samples, min_size=1, max_size=40)
keys = st.lists(st.sampled_from(SORT_KEYS), unique=True, max_size=4)
FRAME_AT = {"symbol": 0, "dso": 1, "mode": 2}


def _row(sample: Sample, frame: tuple[str, str, str], sort: list[str]) -> tuple[object, ...]:
    return tuple(frame[FRAME_AT[key]] if key in FRAME_AT else getattr(sample, key) for key in sort)


@pytest.mark.parametrize("addends", [5, 1_000_000])
@given(
    drawn=profiles,
    sort=keys,
    modes=st.sampled_from([None, ("guest",), ("host-user", "guest-kernel")]),
)
def test_report_is_the_sum_of_a_plain_loop(
    drawn: list[Sample], sort: list[str], modes: tuple[str, ...] | None, addends: int
) -> None:
    chosen = {"guest": GUEST_MODES}.get(modes[0], modes) if modes else None
    kept = [s for s in drawn if chosen is None or s.frames[-1][2] in chosen]
    own: Counter[tuple[object, ...]] = Counter()
    both: Counter[tuple[object, ...]] = Counter()
    count: Counter[tuple[object, ...]] = Counter()
    sure: Counter[tuple[object, ...]] = Counter()
    own_sure: Counter[tuple[object, ...]] = Counter()
    for sample in kept:
        rows = {_row(sample, frame, sort) for frame in sample.frames}
        both.update(dict.fromkeys(rows, sample.period))
        own[_row(sample, sample.frames[-1], sort)] += sample.period
        count[_row(sample, sample.frames[-1], sort)] += 1
        if sample.guest_sure == 1:
            sure.update(dict.fromkeys(rows, sample.period))
            own_sure[_row(sample, sample.frames[-1], sort)] += sample.period

    with mock.patch("kvmperf_magic.profile.report._ADDENDS", addends):
        made = report(profile_of(drawn), sort, modes=modes)
    table = made.table
    names = list(zip(*(table[key].tolist() for key in sort), strict=True)) or [()] * len(table)
    assert len(set(names)) == len(names)
    assert dict(zip(names, table["children"].tolist(), strict=True)) == dict(both)
    got = dict(zip(names, table["self"].tolist(), strict=True))
    assert got == {row: own[row] for row in both}
    assert dict(zip(names, table["samples"].tolist(), strict=True)) == {r: count[r] for r in both}
    total = sum(s.period for s in kept)
    assert made.total == table["self"].sum() == total
    if total:
        assert table["overhead"].sum() == pytest.approx(100)
    assert all(a >= b for a, b in pairwise(table["self"].tolist()))

    flat = report(profile_of(drawn), sort, modes=modes, children=False).table
    flat_names = list(zip(*(flat[key].tolist() for key in sort), strict=True)) or [()] * len(flat)
    assert dict(zip(flat_names, flat["self"].tolist(), strict=True)) == dict(own)

    by_process = bool({"guest_comm", "guest_pid"} & set(sort))
    assert ("guest_sure" in table, "guest_sure" in flat) == (by_process, by_process)
    for by, row_names, part, whole in (
        (table, names, sure, both),
        (flat, flat_names, own_sure, own),
    ):
        if by_process:
            wanted = [100 * part[name] / whole[name] if whole[name] else 0 for name in row_names]
            assert by["guest_sure"].tolist() == pytest.approx(wanted)


def _paths(tree: CallTree) -> dict[tuple[tuple[str, str], ...], float]:
    """The self of every node that ends a sample, by the (name, kind) on its way from the root."""
    way: list[tuple[tuple[str, str], ...]] = []
    names = tree.name.values()
    for node, parent in enumerate(tree.parent.tolist()):
        step = (names[node], KINDS[tree.mode[node]])
        way.append((*way[parent], step) if parent >= 0 else ())
    return {way[i]: tree.self[i] for i in np.flatnonzero(tree.samples)}


def labels_of(sample: Sample) -> list[str]:
    """What stands above its frames."""
    mode = sample.frames[-1][2]
    if mode not in GUEST_MODES:
        return [sample.comm]
    vcpu = f"vCPU {sample.vcpu}" if sample.vcpu >= 0 else "vCPU ?"
    ran = [sample.guest_comm or "[no name]"] if sample.guest_pid >= 0 else []
    ran = [name if sample.guest_sure == 1 else f"{name} ?" for name in ran]
    return [sample.machine, vcpu, *ran, f"[{mode.replace('-', ' ')}]"]


@given(profiles, st.sampled_from(["caller", "callee"]))
def test_tree_holds_every_path_once(drawn: list[Sample], order: str) -> None:
    wanted: Counter[tuple[tuple[str, str], ...]] = Counter()
    for sample in drawn:
        guest = sample.frames[-1][2] in GUEST_MODES
        # DSOs are told apart too, but one DSO a name keeps this oracle short
        shown = [f for f in sample.frames if not guest or f[2] not in HOST_MODES]
        path = [*((label, "") for label in labels_of(sample)), *((f[0], f[2]) for f in shown)]
        wanted[tuple(path if order == "caller" else path[::-1])] += sample.period
    one_dso = [
        Sample(**{**s.__dict__, "frames": [(f[0], "x", f[2]) for f in s.frames]}) for s in drawn
    ]
    tree = build_tree(profile_of(one_dso), order=order)  # type: ignore[arg-type]
    assert _paths(tree) == dict(wanted)
    assert len(_paths(tree)) == len(np.flatnonzero(tree.samples)), "a path has two nodes"

    assert (tree.parent[1:] < np.arange(1, len(tree))).all()
    assert (tree.depth[1:] == tree.depth[tree.parent[1:]] + 1).all()
    assert tree.total[0] == tree.self.sum() == sum(s.period for s in drawn)
    below = np.bincount(tree.parent[1:], tree.total[1:], minlength=len(tree))
    assert (tree.total == tree.self + below).all()


def test_real_guest_stacks_stand_below_their_vcpu() -> None:
    vmm = ("ioctl", "/bin/qemu", "host-user")
    syscall = ("entry_SYSCALL_64", "[guest.kernel.kallsyms]", "guest-kernel")
    program = ("main", "/bin/dbench", "guest-user")
    guest = Sample([vmm, program, syscall], 7, comm="CPU 2/KVM", machine="vm", vcpu=2)
    host = Sample([vmm], 5, comm="qemu")
    tree = build_tree(profile_of([guest, host]))
    assert _paths(tree) == {
        (
            ("vm", ""),
            ("vCPU 2", ""),
            ("[guest kernel]", ""),
            ("main", "guest-user"),
            ("entry_SYSCALL_64", "guest-kernel"),
        ): 7,
        (("qemu", ""), ("ioctl", "host-user")): 5,
    }
    by_thread = _paths(build_tree(profile_of([guest, host]), roots="tid,mode"))
    steps = (("tid 1", ""), ("guest-kernel", ""), ("ioctl", "host-user"))
    assert ((*steps, ("main", "guest-user"), ("entry_SYSCALL_64", "guest-kernel"))) in by_thread
    assert set(_paths(build_tree(profile_of([host]), roots=""))) == {(("ioctl", "host-user"),)}


@given(
    st.lists(st.tuples(*[st.sampled_from([-(2**31), -1, 0, 7, 2**31 - 1, 2**40])] * 3), max_size=30)
)
def test_rows_of_any_integers_are_grouped(drawn: list[tuple[int, int, int]]) -> None:
    columns = [np.array([row[i] for row in drawn], dtype=np.int64) for i in range(3)]
    groups = group_rows(columns, len(drawn))
    numbers = dict(zip(drawn, groups.ids.tolist(), strict=True))
    assert [numbers[row] for row in drawn] == groups.ids.tolist()
    assert sorted(numbers.values()) == list(range(len(groups)))
    assert {row: numbers[row] for row in numbers} == {
        drawn[some]: number for number, some in enumerate(groups.row.tolist())
    }


@given(profiles, st.data())
def test_select_takes_rows_of_every_column(drawn: list[Sample], data: st.DataObject) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(drawn), max_size=len(drawn))))
    whole, part = profile_of(drawn), profile_of([s for s, m in zip(drawn, mask, strict=True) if m])
    chosen = whole.select(mask)
    assert len(chosen) == mask.sum()
    assert chosen.total == part.total
    for key in (*SAMPLE_KEYS, "guest_sure", "symbol", "dso"):
        column, wanted = getattr(chosen, key), getattr(part, key)
        if isinstance(column, Categorical):
            assert column.values().tolist() == wanted.values().tolist()
        else:
            assert column.tolist() == wanted.tolist()
    rows = [sorted(map(str, report(p, "sym,dso,mode").table.rows())) for p in (chosen, part)]
    assert rows[0] == rows[1]


def _simple() -> Profile:
    lib = ("memcpy", "/usr/lib/libc.so", "host-user")
    return profile_of([Sample([("main", "a.out", "host-user"), lib], 90), Sample([lib], 10)])


def test_limits_orders_and_display() -> None:
    made = report(_simple(), "symbol", order="children", percent_limit=95)
    assert made.table["symbol"].tolist() == ["memcpy"]
    assert "100 % = 100 events" in repr(made)
    full = repr(report(_simple()))
    assert "memcpy" in full
    assert "libc.so" in full
    assert "/usr" not in full, "DSOs are shown without their folders"
    assert "memcpy" in made._repr_html_()
    empty = report(_simple(), modes="guest")
    assert len(empty) == 0
    assert "0 rows" in repr(empty)
    assert len(build_tree(_simple().in_modes("guest"))) == 1


def test_twice_stored_names_are_one_row() -> None:
    twice = Categorical(np.array([0, 1], np.int32), ["sh", "sh"])
    profile = replace(_simple(), comm=twice)
    assert report(profile, "comm").table["comm"].tolist() == ["sh"]
    tree = build_tree(profile)
    assert tree.name.values()[tree.depth == 1].tolist() == ["sh"]


def test_hostile_names_are_escaped() -> None:
    bad = profile_of([Sample([("<script>x</script>", "d", "host-user")])])
    assert "<script>x" not in report(bad)._repr_html_()


@pytest.mark.parametrize(
    "call",
    [
        lambda p: report(p, "colour"),
        lambda p: report(p, "comm,comm"),
        lambda p: report(p, order="up"),
        lambda p: report(p, order="children", children=False),
        lambda p: report(p, modes="kernel"),
        lambda p: build_tree(p, order="up"),
        lambda p: build_tree(p, roots="colour"),
    ],
)
def test_unknown_words_are_query_errors(call: Callable[[Profile], object]) -> None:
    with pytest.raises(QueryError):
        call(_simple())
