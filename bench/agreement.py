"""How many samples fall in folded lines that are identical to perf's, and why others do not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

_HEAD = re.compile(r"^(?P<comm>\S.*?)\s+(?P<tid>-?\d+)(/\d+)?\s+(\[\d+\]\s+)?(?P<time>[\d.]+):")
_FRAME = re.compile(r"^\s*[0-9a-f]+ (?P<symbol>.*) \((?P<dso>[^)]*(\([^)]*\))?)\)\s*$")
_OFFSET = re.compile(r"\+0x[0-9a-f]+$")


def collapse(lines: Iterable[str]) -> Counter[str]:
    """`perf script` to folded stacks, counted in samples: comm, then the frames, root first."""
    found: Counter[str] = Counter()
    comm, frames = "", list[str]()
    for line in lines:
        if frame := _FRAME.match(line):
            symbol = _OFFSET.sub("", frame["symbol"])
            frames.append(symbol.replace(";", ":"))
        elif head := _HEAD.match(line):
            comm, frames = head["comm"].strip(), []
            if frame := _FRAME.match(line[head.end() :]):  # without a chain: all on one line
                found[f"{comm};{_OFFSET.sub('', frame['symbol']).replace(';', ':')}"] += 1
                comm = ""
        elif not line.strip() and comm:
            found[";".join([comm, *reversed(frames)])] += 1
            comm = ""
    return found


_REASONS = {
    "@plt": "entries of the PLT: perf names none of .plt.sec and .plt.got, or with an empty name",
    "{lambda": "parameters of lambdas, which LLVM and libiberty write differently",
    "[unknown]": "frames without a name, of which perf names some or none",
}
_OTHER = "another of several names of one address; chains that perf drops for a word above MAX"


def _why(line: str) -> str:
    """Which difference a line of ours has to perf's."""
    return next((reason for mark, reason in _REASONS.items() if mark in line), _OTHER)


def agreement(path: str) -> str:
    """A few lines to print."""
    import kvmperf_magic as kvm

    command = ["perf", "script", "--no-inline", "-F", "comm,tid,time,ip,sym,dso", "-i", path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        theirs = collapse(process.stdout)
    recording = kvm.open(path, cache=False)
    period = int(recording.profile.period.max(initial=1))
    lines = (line.rpartition(" ") for line in recording.to_folded().splitlines())
    ours = Counter({path: int(weight) // period for path, _, weight in lines})
    same = sum((ours & theirs).values())
    total = max(ours.total(), theirs.total())
    text = [f"{same / total:.2%} of {total:,} samples fall in folded lines identical to perf's"]
    reasons: Counter[str] = Counter()
    for line, count in (ours - theirs).items():
        reasons[_why(line)] += count
    text += [f"  {count / total:.2%} {reason}" for reason, count in reasons.most_common()]
    return "\n".join(text)


if __name__ == "__main__":
    print(agreement(sys.argv[1]))
