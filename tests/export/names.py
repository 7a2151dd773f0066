"""Names that formats must carry, and folded text read back."""

from __future__ import annotations

from collections import Counter

# names that break what is not quoted: each must come out of every format as it went in
HOSTILE = (
    'say "hi"',
    "two\nlines",
    "</script><script>alert(1)</script>",
    "\u202egnirts\u202c",
    "x" * 4096,
    "a;b c\\d\t,'e' 7",
    "std::map<int, char>::operator[](int const&)",
)


def paths_of(text: str) -> Counter[tuple[str, ...]]:
    """Folded text as sums by path; a guest's path without its VM and vCPU, a host's without comm:
    what the formats say elsewhere than in the stack."""
    sums: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        path, _, weight = line.rpartition(" ")
        frames = path.split(";")
        guest = frames[2:3] in (["[guest kernel]"], ["[guest user]"])
        sums[tuple(frames[2:] if guest else frames[1:])] += int(weight)
    return sums
