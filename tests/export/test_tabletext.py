"""Tables as CSV and JSON, read by the standard library, pandas and polars."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from names import HOSTILE

from kvmperf_magic.errors import FileError
from kvmperf_magic.profile.profile import categorical
from kvmperf_magic.recording import Recording
from kvmperf_magic.table import Ragged, Table

_BIG = 2**64 - 1


def hostile() -> Table:
    n = len(HOSTILE)
    offsets = np.arange(n + 1) * 2
    return Table(
        {
            "name": categorical(HOSTILE),
            "big": np.full(n, _BIG, np.uint64),
            "share": np.array([0.1, math.nan, math.inf, -math.inf, 1e300, -0.0, 1 / 3]),
            "ok": np.arange(n) % 2 == 0,
            "raw": Ragged(offsets, np.arange(2 * n, dtype=np.uint8)),
            "list": Ragged(offsets, np.arange(2 * n, dtype=np.uint64) + np.uint64(_BIG - 2 * n)),
        }
    )


def test_csv_by_the_standard_library() -> None:
    table = hostile()
    head, *rows = csv.reader(io.StringIO(table.to_csv(), newline=""))
    assert head == table.columns
    assert [row[0] for row in rows] == list(HOSTILE)
    assert {int(row[1]) for row in rows} == {_BIG}
    assert np.array_equal([float(row[2]) for row in rows], table["share"], equal_nan=True)
    assert [row[3] for row in rows] == [str(ok) for ok in table["ok"].tolist()]
    assert [bytes.fromhex(row[4]) for row in rows] == table.column("raw").tolist()
    assert [json.loads(row[5]) for row in rows] == table.column("list").tolist()


def test_csv_by_pandas_and_polars() -> None:
    table = hostile()
    text = table.to_csv()
    by_pandas = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=["NaN"])
    by_polars = pl.read_csv(io.StringIO(text), schema_overrides={"big": pl.UInt64})
    for frame in (by_pandas, by_polars):
        assert list(frame["name"]) == list(HOSTILE)
        assert [int(value) for value in frame["big"]] == [_BIG] * len(table)
        assert np.array_equal(np.array(frame["share"]), table["share"], equal_nan=True)
        assert list(frame["ok"]) == table["ok"].tolist()


def test_json_by_the_standard_library_and_polars() -> None:
    table = hostile()
    text = table.to_json()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    rows = json.loads(text, parse_constant=refuse)
    assert [row["name"] for row in rows] == list(HOSTILE)
    assert {row["big"] for row in rows} == {_BIG}
    assert [row["share"] for row in rows] == [0.1, None, None, None, 1e300, -0.0, 1 / 3]
    assert [bytes.fromhex(row["raw"]) for row in rows] == table.column("raw").tolist()
    assert [row["list"] for row in rows] == table.column("list").tolist()
    frame = pl.read_json(io.StringIO(text), schema_overrides={"big": pl.UInt64})
    assert frame["name"].to_list() == list(HOSTILE)
    assert frame["big"].to_list() == [_BIG] * len(table)


def test_every_table_of_a_recording_comes_back(recording: Recording) -> None:
    tables = (recording.samples, recording.events, recording.report().table, recording.symbols)
    for table in tables:
        frame = pd.read_csv(io.StringIO(table.to_csv()), keep_default_na=False)
        assert list(frame.columns) == table.columns
        rows = json.loads(table.to_json())
        assert len(rows) == len(frame) == len(table)
        for name in table.columns:
            values = table[name].tolist()
            assert [row[name] for row in rows] == values
            assert frame[name].astype(str).tolist() == [*map(str, values)] or np.allclose(
                frame[name], values, rtol=1e-12
            )


def test_no_rows_and_no_columns() -> None:
    empty = Table({"a": np.zeros(0, np.int64), "b": categorical([])})
    assert empty.to_csv() == "a,b\n"
    assert json.loads(empty.to_json()) == []
    assert json.loads(Table({}).to_json()) == []


def test_paths(tmp_path: Path) -> None:
    table = hostile()
    plain, packed = tmp_path / "t.csv", tmp_path / "t.csv.gz"
    text = table.to_csv(plain)
    table.to_csv(packed)
    assert plain.read_bytes() == text.encode() == gzip.decompress(packed.read_bytes())
    with pytest.raises(FileError, match="cannot be written"):
        table.to_json(tmp_path / "nowhere" / "t.json")
