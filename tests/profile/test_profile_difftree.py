"""Two call trees in one: against a plain loop, against the flat diff, and by simulation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.errors import QueryError
from kvmperf_magic.profile.diff import compare
from kvmperf_magic.profile.difftree import BOTH, NEW, VANISHED, DiffStacks, DiffTree
from kvmperf_magic.profile.profile import Profile, Sample, profile_of
from kvmperf_magic.profile.stats import estimate_shares

HOST, GUEST = "[kernel.kallsyms]", "[guest.kernel.kallsyms]"
Path = tuple[str, ...]


def nodes(tree: DiffTree) -> dict[Path, int]:
    """Every node by the names on its way from the root."""
    ways: list[Path] = []
    for i, above in enumerate(tree.parent.tolist()):
        ways.append((*ways[above], tree.name.categories[tree.name.codes[i]]) if above >= 0 else ())
    assert len(set(ways)) == len(ways)
    return {way: i for i, way in enumerate(ways)}


def inclusive(
    samples: list[Sample], of: Callable[[Path], Path | None] = lambda way: way
) -> Counter[Path]:
    """The weight of each way and of all that goes on from it; of `()` all there is. `of` turns a
    sample's way into another one, or into none."""
    found: Counter[Path] = Counter()
    for sample in samples:
        way = of((sample.comm, *(frame[0] for frame in sample.frames)))
        for length in range(0 if way is None else len(way) + 1):
            found[way[:length]] += sample.period
    return found


samples = st.builds(
    Sample,
    frames=st.lists(st.sampled_from(["main", "lock", "read"]), min_size=1, max_size=5).map(
        lambda names: [(name, "/bin/x", "host-user") for name in ("start", *names)]
    ),
    period=st.integers(1, 1 << 20),
    time=st.integers(0, 1000),
    comm=st.sampled_from(["sh", "dd"]),
)


def check(tree: DiffTree, sides: list[list[Sample]], of: Callable[[Path], Path | None]) -> None:
    wanted = [inclusive(side, of) for side in sides]
    whole = [sum(sample.period for sample in side) for side in sides]
    found = nodes(tree)
    assert set(found) == set(wanted[0]) | set(wanted[1])
    for way, i in found.items():
        shares = [100 * side[way] / all_of for side, all_of in zip(wanted, whole, strict=True)]
        assert (tree.baseline[i], tree.other[i]) == pytest.approx(tuple(shares))
        assert tree.delta[i] == pytest.approx(shares[1] - shares[0])
        assert tree.low[i] <= tree.delta[i] <= tree.high[i]
        there = [way in side for side in wanted]
        assert tree.status[i] == {(1, 1): BOTH, (0, 1): NEW, (1, 0): VANISHED}[tuple(there)]
    assert tree.baseline_self.sum() == pytest.approx(tree.baseline[0])
    assert tree.other_self.sum() == pytest.approx(tree.other[0])
    assert (tree.significant == ((tree.low > 0) | (tree.high < 0))).all()


def collapsed(way: Path) -> Path:
    return tuple(name for i, name in enumerate(way) if not i or name != way[i - 1])


@given(st.lists(samples, min_size=1, max_size=30), st.lists(samples, min_size=1, max_size=30))
def test_every_node_is_the_sum_of_a_plain_loop(first: list[Sample], second: list[Sample]) -> None:
    sides = [first, second]
    joined = DiffStacks(profile_of(first), profile_of(second))
    check(joined.tree(), sides, lambda way: way)
    assert not joined.tree().significant[0]
    check(joined.tree(callee=True), sides, lambda way: way[::-1])
    check(joined.tree(collapse=True), sides, collapsed)
    check(joined.tree(callee=True, collapse=True), sides, lambda way: collapsed(way)[::-1])
    tree = joined.tree()
    of_lock = {int(tree.token[i]) for way, i in nodes(tree).items() if way[-1:] == ("lock",)}
    if not of_lock:
        return
    callees, callers = joined.between([*of_lock])
    check(callees, sides, lambda way: way[way.index("lock") + 1 :] if "lock" in way else None)
    check(callers, sides, lambda way: way[: way.index("lock")][::-1] if "lock" in way else None)
    assert callees.token[0] == callers.token[0] in of_lock
    assert callees.other[0] == pytest.approx(callers.other[0])
    assert joined.between([*of_lock], collapse=True)[0].baseline[0] == callees.baseline[0]


def stacks(counts: dict[tuple[tuple[str, str, str], ...], int], **fields: object) -> Profile:
    """So many samples of each stack, well mixed over time."""
    rows = [frames for frames, count in counts.items() for _ in range(count)]
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    return profile_of(
        [Sample(rows[i], 10, t, **fields) for t, i in enumerate(order.tolist())]  # type: ignore[arg-type]
    )


def test_a_host_and_a_guest_kernel_function_meet_on_one_row() -> None:
    entry, lock = ("entry_SYSCALL_64", HOST), ("_raw_spin_lock", HOST)
    host = stacks(
        {
            ((*entry, "host-kernel"), (*lock, "host-kernel")): 30,
            ((*entry, "host-kernel"), ("ext4_readdir", "[ext4]", "host-kernel")): 970,
        },
        comm="dbench",
    )
    guest = stacks(
        {
            ((entry[0], GUEST, "guest-kernel"), (lock[0], GUEST, "guest-kernel")): 280,
            ((entry[0], GUEST, "guest-kernel"), ("ext4_readdir", GUEST, "guest-kernel")): 700,
            ((entry[0], GUEST, "guest-kernel"), ("clear_page", GUEST, "guest-kernel")): 20,
        },
        machine="vm",
        comm="CPU 0/KVM",
    )
    tree = DiffStacks(host, guest).tree()
    found = nodes(tree)
    assert set(found) == {
        (),
        ("entry_SYSCALL_64",),
        ("entry_SYSCALL_64", "_raw_spin_lock"),
        ("entry_SYSCALL_64", "ext4_readdir"),
        ("entry_SYSCALL_64", "clear_page"),
    }
    lock_node = found["entry_SYSCALL_64", "_raw_spin_lock"]
    assert (tree.baseline[lock_node], tree.other[lock_node]) == pytest.approx((3, 28))
    assert tree.significant[lock_node]
    assert tree.dso.categories[tree.dso.codes[lock_node]] == GUEST
    assert not tree.significant[found["entry_SYSCALL_64",]]
    assert tree.status[found["entry_SYSCALL_64", "clear_page"]] == NEW
    assert not tree.leaves


def test_where_one_side_has_no_stacks_the_leaves_are_compared() -> None:
    host = stacks(
        {
            (("main", "/x", "host-user"), ("lock", "/x", "host-user")): 100,
            (("main", "/x", "host-user"), ("work", "/x", "host-user")): 900,
        }
    )
    guest = stacks(
        {
            (("ioctl", "/bin/vmm", "host-user"), ("lock", "/g", "guest-user")): 900,
            (("ioctl", "/bin/vmm", "host-user"), ("work", "/g", "guest-user")): 100,
        },
        machine="vm",
    )
    tree = DiffStacks(host, guest).tree()
    assert tree.leaves
    assert set(nodes(tree)) == {(), ("lock",), ("work",)}
    assert tree.delta[nodes(tree)["lock",]] == pytest.approx(80)


def test_vms_of_one_each_meet_and_unnamed_threads_do() -> None:
    def run(vm: str, comm: str) -> Profile:
        guest = [Sample([("f", "/g", "guest-user")], 5, t, machine=vm) for t in range(50)]
        host = [Sample([("g", "/h", "host-user")], 5, t, comm=comm) for t in range(50)]
        return profile_of([*guest, *host])

    tree = DiffStacks(run("vm-1", ":71"), run("vm-2", ":93")).tree()
    assert set(nodes(tree)) == {
        (),
        ("vm-2",),
        ("vm-2", "[guest user]"),
        ("vm-2", "[guest user]", "f"),
        ("[thread]",),
        ("[thread]", "g"),
    }
    assert not tree.status.any()


def test_leaves_have_the_intervals_of_the_flat_diff() -> None:
    """Of a tree of one level the shares, and their variances, are those of `compare`."""
    random = np.random.default_rng(3)

    def drawn(heavy: float) -> Profile:
        share = np.array([heavy, *np.full(9, (1 - heavy) / 9)])
        picks = random.choice(10, 4000, p=share)
        return profile_of(
            [
                Sample([(f"f{i}", "/x", "host-user")], int(p), t, comm="x")
                for t, (i, p) in enumerate(zip(picks, random.integers(1, 9, 4000), strict=True))
            ]
        )

    a, b = drawn(0.1), drawn(0.3)
    tree, flat = DiffStacks(a, b).tree(), compare(a, b).table
    found = nodes(tree)
    rows = {row["symbol"]: row for row in flat.rows()}
    for name, row in rows.items():
        i = found["x", name]
        assert (tree.baseline[i], tree.other[i]) == pytest.approx((row["baseline"], row["other"]))
        # one more finding (the root's) shares the error: a hair wider
        assert tree.high[i] - tree.low[i] == pytest.approx(row["ci_high"] - row["ci_low"], rel=0.02)
        assert tree.high[i] - tree.low[i] > row["ci_high"] - row["ci_low"]
    assert tree.significant[found["x", "f0"]]
    # turned round, the innermost frames are the rows themselves
    reverse = DiffStacks(a, b).tree(callee=True)
    for name, row in rows.items():
        i = nodes(reverse)[name,]
        assert (reverse.low[i], reverse.high[i]) == pytest.approx(
            (tree.low[found["x", name]], tree.high[found["x", name]])
        )
        assert reverse.delta[i] == pytest.approx(row["delta"])
    # a chain is one finding, not three
    assert not tree.significant[found["x",]]
    whole = estimate_shares(np.zeros(4000, np.int64), 1, a.period.astype(np.float64), a.time)
    assert whole.share[0] == 1


def program(random: np.random.Generator, tilt: float = 0.0) -> Callable[[int], Profile]:
    """Draws of one program of about 400 functions in bursts, as real ones run; `tilt` takes
    weight from all others for the function hot_path."""
    paths: list[list[str]] = [["main"]]
    for i in range(400):
        above = paths[random.integers(0, len(paths))]
        paths.append([*above[:12], f"f{i}"])
    share = random.pareto(1.0, len(paths)) + 0.01
    share /= share.sum()
    paths.append(["main", "hot_path"])
    share = np.array([*share * (0.95 - tilt), 0.05 + tilt])

    def draw(count: int) -> Profile:
        bursts = random.choice(len(paths), count // 3, p=share)
        picks = np.repeat(bursts, random.integers(1, 6, len(bursts)))[:count]
        frames = [[(name, "/x", "host-user") for name in path] for path in paths]
        return profile_of(Sample(frames[i], 1000, t, comm="x") for t, i in enumerate(picks))

    return draw


def test_the_same_workload_twice_is_grey_and_a_change_is_not() -> None:
    coloured, frames = 0, 0
    for seed in range(12):
        draw = program(np.random.default_rng(seed))
        tree = DiffStacks(draw(5000), draw(5000)).tree()
        coloured += int(tree.significant.sum())
        frames += len(tree)
    assert frames > 2000
    assert coloured <= 0.01 * frames  # 5 % is what is promised
    calm, busy = (program(np.random.default_rng(5), tilt) for tilt in (0.0, 0.2))
    tree = DiffStacks(calm(5000), busy(5000)).tree()
    hot = nodes(tree)["x", "main", "hot_path"]
    assert tree.significant[hot]
    assert tree.low[hot] < 20 < tree.high[hot]


def test_merged_from_all_places_a_change_is_certain_that_is_not_in_any() -> None:
    """In each of many places a little more of a lock: only together they are more than chance."""
    random = np.random.default_rng(11)
    places = [f"caller{i}" for i in range(40)]

    def drawn(share: float) -> Profile:
        locked = random.random(6000) < share
        at = random.integers(0, len(places), 6000)
        return profile_of(
            Sample(
                [(name, "/x", "host-user") for name in (places[i], "lock" if lock else "work")],
                1000,
                t,
                comm="x",
            )
            for t, (i, lock) in enumerate(zip(at.tolist(), locked.tolist(), strict=True))
        )

    joined = DiffStacks(drawn(0.10), drawn(0.16))
    tree = joined.tree()
    locks = [i for way, i in nodes(tree).items() if way[-1:] == ("lock",)]
    assert len(locks) == len(places)
    assert not tree.significant[locks].any()
    reverse = joined.tree(callee=True)
    assert reverse.significant[nodes(reverse)["lock",]]
    callees, callers = joined.between([int(tree.token[locks[0]])])
    assert callees.significant[0]
    assert not callers.significant[1:].any()
    assert callers.low[0] < 6 < callers.high[0]
    with pytest.raises(QueryError, match="no stack"):
        joined.between([joined.tokens])


def test_a_side_without_weight_is_refused() -> None:
    one = profile_of([Sample([("f", "/x", "host-user")])])
    with pytest.raises(QueryError, match="no samples"):
        DiffStacks(one, one.select(slice(0)))
    assert len(DiffStacks(one, one).tree()) == 3
