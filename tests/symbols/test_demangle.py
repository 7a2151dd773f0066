"""Demangling against c++filt, and names made to hurt."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmperf_magic.symbols.demangle import demangle
from kvmperf_magic.symbols.elf import ElfImage

EXAMPLES = {
    "_Z3fooIiEvT_": "foo<int>",
    "_ZN1AclEi": "A::operator()",
    "_ZN1AcvbEv": "A::operator bool",
    "_ZN1AltERKS_": "A::operator<",
    "_ZN1AptEv": "A::operator->",
    "_ZN12_GLOBAL__N_13fooEi": "(anonymous namespace)::foo",
    "_ZTV1A": "vtable for A",
    "_ZThn16_N1A1fEi": "non-virtual thunk to A::f(int)",
    "_Z3fooi.constprop.0": "foo",
    "_ZNK1A1fEv.cold": "A::f",
    "_Znwm@plt": "operator new@plt",
    "_ZN4core3fmt9Formatter3pad17h0123456789abcdefE": "core::fmt::Formatter::pad",
    "_ZN50_$LT$T$u20$as$u20$core..convert..Into$LT$U$GT$$GT$4into17h0123456789abcdefE": (
        "<T as core::convert::Into<U>>::into"
    ),
    "_ZZ3fooiENKUlvE_clEv": "foo(int)::{lambda()#1}::operator()",
    "_ZZ3fooiENKUlPFvvEE1_clES0_": "foo(int)::{lambda(void (*)())#3}::operator()",
    "_Zgarbage": "_Zgarbage",
    "_ZN": "_ZN",
    "main": "main",
    "": "",
}


@pytest.mark.parametrize("mangled", EXAMPLES)
def test_example(mangled: str) -> None:
    assert demangle(mangled) == EXAMPLES[mangled]


@pytest.mark.compiler
def test_as_cplusplus_filter_does() -> None:
    library = next(Path("/usr/lib").rglob("libstdc++.so.6"))
    table = ElfImage(library).symbols()
    # the short forms of std::string and the streams are spelled in other ways
    spelled = re.compile(r"S[sibod]|Ut|_ZG|Dn|_ZZ")
    names = [n for n in table.names if n.startswith("_Z") and not spelled.search(n)]
    assert len(names) > 1000
    done = subprocess.run(
        ["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    different = [
        (name, theirs)
        for name, theirs in zip(names, done.stdout.splitlines(), strict=True)
        if demangle(name).replace(" ", "") != theirs.replace(" ", "")
    ]
    assert len(different) <= len(names) // 500, different[:5]


def deep(function: Callable[[], object]) -> None:
    """Run in a thread with a small stack, where recursion runs out first."""
    old = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(old)


@pytest.mark.parametrize(
    "name",
    [
        *("_Z1f" + "P" * n + "v" for n in (1400, 200_000)),
        *("_Z" + "N" * n for n in (1400, 200_000)),
        "_Z1fI" + "1AI" * 450,
        "_R" + "I" * 1400,
        "?" * 1400,
        # every level doubles what the one before expands to
        "_Z1f1XIiiE"
        + "".join(f"1YIS{i}_S{i}_E" for i in [*"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"]),
        "_Z1f\0v",
        "_Z\udcff",
    ],
    ids=range(10),
)
def test_names_made_to_hurt(name: str) -> None:
    found: list[str] = []
    deep(lambda: found.append(demangle(name)))
    assert len(found[0]) < 10_000_000


@given(st.text("_ZNKSt0123456789EIiLPRTvcl(){}<>.@$u \0é", max_size=60))
def test_any_text_is_a_name(text: str) -> None:
    for prefix in ("", "_Z", "_R", "?"):
        assert isinstance(demangle(prefix + text), str)
