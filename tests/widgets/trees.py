"""Trees for the tests: made by hypothesis, by hand, and big ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st

from kvmperf_widgets.tree import Tree

KINDS = ["", "host-kernel", "host-user", "hypervisor", "guest-kernel", "guest-user"]


def tree_of(
    parent: list[int], names: list[str], values: list[float], kinds: list[str] | None = None
) -> Tree:
    unique = sorted(set(names))
    return Tree(
        np.array(parent, dtype=np.int32),
        np.array([unique.index(n) for n in names], dtype=np.int32),
        unique,
        np.array(values, dtype=np.float64),
        np.array([KINDS.index(k) for k in kinds or [""] * len(names)], dtype=np.int32),
        KINDS,
        np.zeros(len(names), dtype=np.int32),
        ["[kernel.kallsyms]"],
    )


Stack = tuple[tuple[str, str], ...]


def paths(tree: Tree) -> dict[Stack, float]:
    """Weight by stack (root left out): the oracle, frame by frame in plain Python."""
    weights: dict[Stack, float] = {}
    stacks: list[Stack] = []
    for i, above in enumerate(tree.parent.tolist()):
        own = (tree.names[tree.name[i]], tree.kinds[tree.kind[i]])
        stacks.append((*stacks[above], own) if above >= 0 else ())
        if tree.self_value[i]:
            weights[stacks[i]] = weights.get(stacks[i], 0.0) + float(tree.self_value[i])
    return weights


def summed(stacks: Iterable[tuple[Stack, float]]) -> dict[Stack, float]:
    """The weights of equal stacks added up."""
    weights: dict[Stack, float] = {}
    for stack, weight in stacks:
        weights[stack] = weights.get(stack, 0.0) + weight
    return weights


@st.composite
def trees(draw: st.DrawFn, most: int = 60) -> Tree:
    count = draw(st.integers(1, most))
    parent = [-1] + [draw(st.integers(max(0, i - 8), i - 1)) for i in range(1, count)]
    names = [draw(st.sampled_from("abcdefgh")) for _ in range(count)]
    values = [draw(st.sampled_from([0.0, 0.25, 1.0, 7.0, 1e9])) for _ in range(count)]
    kinds = [draw(st.sampled_from(KINDS)) for _ in range(count)]
    return tree_of(parent, names, values, kinds)


def big_tree(count: int = 50_000, seed: int = 1) -> Tree:
    """A tree shaped like a profile: deep chains, few heavy frames, a long tail."""
    random = np.random.default_rng(seed)
    back = np.minimum(random.geometric(0.001, count), np.arange(count).clip(1))
    parent = (np.arange(count) - back).astype(np.int32)
    parent[0] = -1
    values = random.pareto(0.9, count) * 1e6
    names = [f"function_number_{i}" for i in range(5000)]
    return Tree(
        parent,
        random.integers(0, len(names), count).astype(np.int32),
        names,
        values,
        random.integers(0, len(KINDS), count).astype(np.int32),
        KINDS,
        random.integers(0, 3, count).astype(np.int32),
        ["[kernel.kallsyms]", "/usr/bin/qemu-system-x86_64", "/lib/libc.so.6"],
    )


def deep_tree(count: int = 50_000, depth: int = 1000, *, recursive: bool = False) -> Tree:
    """Chains of `depth` frames of any names; or one such chain of two names that call each other,
    with everything else beneath its frames."""
    random = np.random.default_rng(2)
    parent = np.arange(-1, count - 1)
    parent[1::depth] = 0
    name = random.integers(0, 5000, count)
    if recursive:
        parent[depth:] = random.integers(0, depth, count - depth)
        parent[0] = -1
        name = np.where(np.arange(count) < depth, np.arange(count) % 2, name)
    parent[0] = -1
    return Tree(
        parent.astype(np.int32),
        name.astype(np.int32),
        [f"function_number_{i}" for i in range(5000)],
        random.pareto(0.9, count) * 1e6,
        np.full(count, KINDS.index("host-user"), dtype=np.int32),
        KINDS,
        np.zeros(count, dtype=np.int32),
        ["a.out"],
    )
