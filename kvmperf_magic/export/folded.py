"""Folded stacks, as flame graph tools read them: `frame;frame;frame weight`, root first."""

from __future__ import annotations

from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.profile.tree import build_tree

# what separates frames and ends lines may not stand in a name
_UNSAFE = str.maketrans({";": ":", "\n": " ", "\r": " "})


def folded(profile: Profile) -> str:
    """A line for each distinct stack, sorted, with the sum of its periods.

    Host stacks stand under their comm, guest stacks under VM, vCPU and guest ring.
    """
    tree = build_tree(profile)
    names = [name.translate(_UNSAFE) for name in tree.name.categories]
    paths: list[str] = [""]
    lines: list[str] = []
    parents, codes, weights = tree.parent.tolist(), tree.name.codes.tolist(), tree.self.tolist()
    for node in range(1, len(tree)):
        above = paths[parents[node]]
        path = f"{above};{names[codes[node]]}" if above else names[codes[node]]
        paths.append(path)
        if weights[node]:
            lines.append(f"{path} {weights[node]:.0f}\n")
    return "".join(sorted(lines))
