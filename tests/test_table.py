"""Tables as pandas, polars and Arrow see them, and how they slice and show themselves."""

from __future__ import annotations

import numpy as np
import pytest

from kvmperf_magic.errors import QueryError
from kvmperf_magic.modes import MODES, mode_codes
from kvmperf_magic.table import Categorical, Ragged, Table


@pytest.fixture
def table() -> Table:
    names = Categorical(np.array([1, 0, 1, 2], np.int32), ["<b>", "lock", "copy"])
    return Table({"symbol": names, "samples": np.array([5, 3, 2, 1])})


def test_every_library_gets_the_same_rows(table: Table) -> None:
    expected = {"symbol": ["lock", "<b>", "lock", "copy"], "samples": [5, 3, 2, 1]}
    assert table.to_arrow().to_pydict() == expected
    assert table.to_polars().to_dict(as_series=False) == expected
    frame = table.to_pandas()
    assert {name: frame[name].tolist() for name in frame} == expected
    assert {name: table[name].tolist() for name in table} == expected
    assert list(table.rows())[1] == {"symbol": "<b>", "samples": 3}


def test_one_name_stored_twice_is_one_category_in_pandas() -> None:
    twice = Categorical(np.array([0, 1, 2], np.int32), ["a", "b", "a"])
    frame = Table({"name": twice}).to_pandas()
    assert frame["name"].tolist() == ["a", "b", "a"]
    assert sorted(frame["name"].cat.categories) == ["a", "b"]


def test_slices_and_masks_are_tables(table: Table) -> None:
    assert table[1:3]["samples"].tolist() == [3, 2]
    assert table[table["samples"] > 2]["symbol"].tolist() == ["lock", "<b>"]
    assert len(table[np.array([3, 0])]) == 2
    assert len(table[:0]) == len(table[[]]) == 0
    assert "symbol" in table
    assert table[["samples"]].columns == ["samples"]
    assert table[[3, 0]]["samples"].tolist() == [1, 5]
    assert table[1] == table[np.int64(-3)] == {"symbol": "<b>", "samples": 3}


def test_a_lazy_column_is_made_once_when_asked_for() -> None:
    made = []

    def column() -> np.ndarray:
        made.append(1)
        return np.arange(3)

    table = Table({"lazy": column}, 3)
    assert len(table) == 3
    assert not made
    assert table["lazy"].tolist() == table["lazy"].tolist() == [0, 1, 2]
    assert len(made) == 1


def test_what_is_not_there_is_said(table: Table) -> None:
    with pytest.raises(QueryError, match="columns: symbol, samples"):
        table["nothing"]
    with pytest.raises(QueryError, match="columns: symbol, samples"):
        table[["symbol", "nothing"]]
    with pytest.raises(QueryError, match="a mask"):
        table[[1.5]]
    with pytest.raises(IndexError):
        table[4]
    with pytest.raises(QueryError, match="2 rows, the table 3"):
        Table({"a": np.arange(3), "b": np.arange(2)})


def test_names_of_a_recording_are_no_markup(table: Table) -> None:
    assert "&lt;b&gt;" in table._repr_html_()
    assert "<b>" not in table._repr_html_()
    assert "lock" in repr(table)


def test_sides_stand_for_their_modes() -> None:
    assert [MODES[c] for c in mode_codes(["guest"])] == ["guest-kernel", "guest-user"]
    assert len(mode_codes(["host", "host-user"])) == 3
    with pytest.raises(QueryError, match="no mode 'kernel'"):
        mode_codes(["kernel"])


RAGGED = Ragged(np.array([0, 2, 2, 5]), np.arange(5, dtype=np.uint64))
BYTES = Ragged(np.array([0, 3, 3, 4]), np.frombuffer(b"abc<", np.uint8))
PAIRS = Ragged(
    np.array([0, 1, 1, 3]),
    np.array([(1, 2), (3, 4), (5, 6)], [("from", np.uint64), ("to", np.uint64)]),
)


def test_rows_of_different_lengths_are_lists_in_every_library() -> None:
    table = Table({"words": RAGGED, "raw": BYTES, "branches": PAIRS})
    expected = {
        "words": [[0, 1], [], [2, 3, 4]],
        "raw": [b"abc", b"", b"<"],
        "branches": [[{"from": 1, "to": 2}], [], [{"from": 3, "to": 4}, {"from": 5, "to": 6}]],
    }
    assert table.to_arrow().to_pydict() == expected
    assert table.to_polars().to_dict(as_series=False) == expected
    frame = table.to_pandas()
    assert {name: frame[name].tolist() for name in frame} == expected
    assert {name: [row[name] for row in table.rows()] for name in table} == expected
    # parts of it as well: offsets that do not begin at 0, rows out of order
    for rows in (slice(1, None), np.array([2, 0, 2]), np.array([True, False, True])):
        part = table[rows].to_arrow().to_pydict()
        assert part == {
            n: np.array([*v, None], object)[:-1][rows].tolist() for n, v in expected.items()
        }


def test_rows_may_overlap_and_skip() -> None:
    view = Ragged.view(np.array([4, 0]), np.array([2, 3]), np.arange(8), step=2)
    assert [row.tolist() for row in view] == [[4, 6], [0, 2, 4]]
    assert view.values.tolist() == [4, 6, 0, 2, 4]
    assert view.offsets.tolist() == [0, 2, 5]
    assert [len(row) for row in view.take(np.array([1, 1])).arrays()] == [3, 3]
    assert view.take(slice(0)).values.tolist() == []


def test_rows_of_different_lengths_are_shown_shortly() -> None:
    table = Table({"words": Ragged(np.array([0, 0, 900]), np.arange(900)), "n": np.arange(2)})
    assert "[900] 0x0, 0x1, 0x2 ..." in repr(table)
    assert "61 62 63" in Table({"raw": BYTES})._repr_html_()
    assert "0x1/0x2" in repr(Table({"branches": PAIRS}))


def test_slicing_asks_for_no_lazy_column() -> None:
    made = []

    def column() -> np.ndarray:
        made.append(1)
        return np.arange(6)

    table = Table({"lazy": column}, 6)
    part = table[np.array([5, 1])][:1]
    assert not made
    assert part["lazy"].tolist() == [5]
    assert table["lazy"].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(made) == 1
