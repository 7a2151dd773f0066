"""The vectorised reader of kallsyms against perf's rules, written out one symbol at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from effort import grows_no_faster
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.errors import SymbolError
from kvmperf_magic.symbols import kallsyms

BASE = 0xFFFFFFFF81000000


def by_perfs_rules(text: str) -> list[tuple[int, int, str, str]]:
    """tools/perf/util/symbol.c, done plainly: (start, end, name, module)."""
    found: list[list[Any]] = []
    for line in text.splitlines():
        address, kind, rest = line.split(" ", 2)
        name, _, module = rest.partition("\t")
        if kind.upper() in "TWDB" and not name.startswith("$"):
            found.append([int(address, 16), 0, kind, name, module.strip("[]")])
    found.sort(key=lambda symbol: symbol[0])
    for this, following in zip(found, [*found[1:], None][: len(found)], strict=True):
        page = (this[0] + 4096 + 4095) // 4096 * 4096
        if following is None:
            this[1] = page
        elif following[4] != this[4]:
            this[1] = min(page, following[0])
        else:
            this[1] = following[0]
    kept: list[list[Any]] = []
    for symbol in found:
        if kept and kept[-1][0] == symbol[0]:
            if better(symbol, kept[-1]):
                kept[-1] = symbol
        else:
            kept.append(symbol)
    return [(start, end, name, module) for start, end, _, name, module in kept]


def better(new: list[Any], old: list[Any]) -> bool:
    """choose_best_symbol(): whether the new one is preferred, which it is not when all ties."""
    keys: tuple[Callable[[list[Any]], Any], ...] = (
        lambda s: s[1] > s[0],
        lambda s: s[2] not in "wW",
        lambda s: s[2].isupper(),
        lambda s: -(len(s[3]) - len(s[3].lstrip("_"))),
        lambda s: len(s[3]),
    )
    for key in keys:
        if key(new) != key(old):
            return bool(key(new) > key(old))
    return False


lines = st.lists(
    st.tuples(
        st.integers(0, 40).map(lambda n: BASE + n * 700),
        st.sampled_from("tTwWdDbBrRaV"),
        st.text("_$abXé.", min_size=1, max_size=6),
        st.sampled_from(["", "", "\t[ext4]", "\t[kvm]"]),
    ),
    min_size=1,
    max_size=60,
).map(lambda rows: [f"{at:016x} {kind} {name}{module}" for at, kind, name, module in rows])


@given(lines)
def test_as_perf_reads_it(rows: list[str]) -> None:
    text = "\n".join(rows) + "\n"
    expected = by_perfs_rules(text)
    if not expected:
        with pytest.raises(SymbolError):
            kallsyms.parse(text)
        return
    table = kallsyms.parse(text)
    modules = table.modules.values().tolist()
    assert expected == list(
        zip(table.start.tolist(), table.end.tolist(), table.names, modules, strict=True)
    )


def test_the_running_kernel() -> None:
    text = Path("/proc/kallsyms").read_text()
    if not any(int(line.split()[0], 16) for line in text.splitlines()):
        with pytest.raises(SymbolError, match="kptr_restrict"):
            kallsyms.parse(text)
        return
    table = kallsyms.parse(text)
    expected = by_perfs_rules(text)
    assert len(table) == len(expected)
    assert table.names == [name for _, _, name, _ in expected]
    assert table.end.tolist() == [end for _, end, _, _ in expected]
    marks = {line.split()[2]: int(line.split()[0], 16) for line in text.splitlines()}
    assert table.marks == {name: marks[name] for name in table.marks}
    assert {"_text", "_stext", "_etext"} <= set(table.marks)


def test_hidden_addresses_say_what_to_do() -> None:
    with pytest.raises(SymbolError) as caught:
        kallsyms.parse("0000000000000000 T _text\n0000000000000000 T start\n")
    assert "kptr_restrict" in caught.value.hint


@pytest.mark.parametrize("text", [b"", b"\n", b"hello\nworld\n", b"\x7fELF\x02\x01\x01\0" * 9])
def test_what_is_not_kallsyms(text: bytes) -> None:
    with pytest.raises(SymbolError, match="holds no"):
        kallsyms.parse(text)


def test_damage_costs_only_its_own_lines() -> None:
    good = f"{BASE:016x} T one\n"
    text = good + "zzzzzzzzzzzzzzzz T bad\nffff\n\nffffffff81001000 T two\nffffffff81002000 T"
    assert kallsyms.parse(text).names == ["one", "two"]


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(SymbolError, match="No such file"):
        kallsyms.parse(tmp_path / "kallsyms")


def test_modules_file() -> None:
    text = "ext4 1003520 1 - Live 0xffffffffc0400000\nhidden 4096 0 - Live 0x0000000000000000\n"
    assert kallsyms.parse_modules(text + "broken\n") == {"ext4": (0xFFFFFFFFC0400000, 1003520)}


def test_reading_grows_no_faster_than_the_lines() -> None:
    lines = [f"{BASE + 48 * i:016x} t function_{i:x}\n" for i in range(200_000)]
    few, many = ("".join(lines[:n]).encode() for n in (20_000, 200_000))
    assert len(kallsyms.parse(many)) == 200_000
    assert grows_no_faster(lambda: kallsyms.parse(many), lambda: kallsyms.parse(few))
