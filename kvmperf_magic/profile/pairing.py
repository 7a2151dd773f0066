"""Which symbol of one profile is which of another: the rows of a diff."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvmperf_magic.modes import GUEST_MODES, MODES
from kvmperf_magic.profile.groups import codes_of, group_rows, keys_of, sums
from kvmperf_magic.profile.profile import GUEST_CODES, Profile
from kvmperf_magic.profile.report import SORT_KEYS
from kvmperf_magic.profile.show import short_dso
from kvmperf_magic.table import Categorical

UNRESOLVED = "[unknown]"
DESCRIPTION = ("symbol", "dso", "mode")

_Key = tuple[object, ...]


@dataclass(frozen=True)
class Side:
    """One profile of a pairing. row: int64[n], the row of each sample; sample: int64[rows], a
    sample of the heaviest of what is in the row, -1 where this side has none."""

    row: NDArray[np.int64]
    sample: NDArray[np.int64]


def row_keys(pair: str | Sequence[str]) -> tuple[str, ...]:
    """The sort keys that `pair` stands for."""
    return DESCRIPTION if pair == "auto" else keys_of(pair, SORT_KEYS)


def is_across(a: Profile, b: Profile) -> bool:
    """Whether one profile is of the host only and the other of guests only."""
    guest = [np.isin(p.mode, GUEST_CODES) for p in (a, b)]
    return bool((guest[0].all() and not guest[1].any()) or (guest[1].all() and not guest[0].any()))


def pair_profiles(
    a: Profile, b: Profile, pair: str | Sequence[str] = "auto", *, split_modes: bool = False
) -> tuple[Side, Side]:
    """Gives every sample of both profiles its row; what is paired has the same row.

    pair="auto": a kernel symbol pairs by its name, whatever its module, any other by its name and
    the basename of its DSO; host with host and guest with guest, unless the profiles are of one
    each: then kernel pairs with kernel and user with user, and what is left pairs by name alone
    where exactly one thing on each side has the name (a program run on the host, and the same
    code run as a guest). Names of a real kernel do not pair with user code so: its memcpy is
    not libc's. Unresolved samples pair within their DSO and mode only.

    pair=sort keys ("symbol", "dso,symbol", "comm"): what is equal in these is one row, as in
    `perf diff -s`; DSOs are compared by basename, as perf does (util/sort.c: _sort__dso_cmp()).
    `split_modes` keeps kernel, user and hypervisor in rows of their own.
    """
    across = is_across(a, b)
    keys = row_keys(pair)
    # what describes a row is looked at too, so that the heaviest can be chosen
    wide = tuple(dict.fromkeys((*keys, *(DESCRIPTION if "symbol" in keys else ()))))
    if split_modes and "mode" not in wide:
        wide = (*wide, "mode")
    groups = [group_rows([codes_of(getattr(p, key)) for key in wide], len(p)) for p in (a, b)]
    values = [_values(p, g.row, wide) for p, g in zip((a, b), groups, strict=True)]
    if pair == "auto":
        named = [[_auto_key(one, across) for one in side] for side in values]
        if across:
            _pair_by_name(values, named)
    else:
        named = [[_sort_key(one, wide, keys, across, split_modes) for one in s] for s in values]
    number: dict[_Key, int] = {}
    rows = [np.array([number.setdefault(k, len(number)) for k in s], np.int64) for s in named]
    sides = []
    for profile, found, row in zip((a, b), groups, rows, strict=True):
        weight = sums(found.ids, profile.period.astype(np.float64), len(found))
        heavier_last = np.argsort(weight, kind="stable")
        sample = np.full(len(number), -1, dtype=np.int64)
        sample[row[heavier_last]] = found.row[heavier_last]
        sides.append(Side(row[found.ids], sample))
    return sides[0], sides[1]


def _values(profile: Profile, rows: NDArray[np.int64], keys: Sequence[str]) -> list[_Key]:
    columns = []
    for key in keys:
        column = getattr(profile, key)
        if isinstance(column, Categorical):
            columns.append([column.categories[c] for c in column.codes[rows].tolist()])
        else:
            found = column[rows].tolist()
            columns.append([MODES[mode] for mode in found] if key == "mode" else found)
    return list(zip(*columns, strict=True))


def _ring(mode: str) -> str:
    """kernel, user, hypervisor: a mode without its side."""
    return mode.rsplit("-", 1)[-1]


def _auto_key(values: _Key, across: bool) -> _Key:
    symbol, dso, mode = values
    where = _ring(str(mode)) if across else str(mode)
    if symbol == UNRESOLVED:
        return (str(mode), symbol, str(dso))
    if _ring(str(mode)) == "user":
        return (where, symbol, short_dso(str(dso)))
    return (where, symbol, "")


def _sort_key(
    values: _Key, wide: Sequence[str], keys: Sequence[str], across: bool, split_modes: bool
) -> _Key:
    one = dict(zip(wide, values, strict=True))
    if "dso" in keys:
        one["dso"] = short_dso(str(one["dso"]))
    key = tuple(one[k] for k in keys)
    if not split_modes:
        return key
    return (*key, _ring(str(one["mode"])) if across else one["mode"])


def _pair_by_name(values: list[list[_Key]], named: list[list[_Key]]) -> None:
    """Gives what is the only one of its name on each side the key of the first side."""
    by_name: list[dict[object, set[_Key]]] = []
    kernels: list[set[_Key]] = []
    for side, keys in zip(values, named, strict=True):
        candidates: dict[object, set[_Key]] = defaultdict(set)
        kernel = set()
        for (symbol, dso, mode), key in zip(side, keys, strict=True):
            candidates[symbol].add(key)
            if _ring(str(mode)) != "user" and str(dso).startswith("["):
                kernel.add(key)
        by_name.append(candidates)
        kernels.append(kernel)
    renamed: dict[_Key, _Key] = {}
    for symbol, theirs in by_name[1].items():
        ours = by_name[0].get(symbol, set())
        if symbol == UNRESOLVED or len(ours) != 1 or len(theirs) != 1:
            continue
        (our,), (their,) = ours, theirs
        if our != their and our not in kernels[0] and their not in kernels[1]:
            renamed[their] = our
    named[1] = [renamed.get(key, key) for key in named[1]]


def counterpart(mode: int, across: bool) -> int:
    """The code of the mode that stands opposite to `mode` in a diff."""
    name = MODES[mode]
    if not across or "-" not in name:
        return mode
    other = "host" if name in GUEST_MODES else "guest"
    return MODES.index(f"{other}-{_ring(name)}")
