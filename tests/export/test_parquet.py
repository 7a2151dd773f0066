"""Parquet, read by DuckDB and by polars."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from kvmperf_magic.errors import LibraryError
from kvmperf_magic.recording import Recording


def test_duckdb_finds_the_sums_of_the_report(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    recording.to_parquet(path)
    view = recording.answerable(modes=["host", "guest"])
    report = view.report(sort=("symbol", "mode"), modes=["host", "guest"]).table
    want = {(row["symbol"], row["mode"]): row["self"] for row in report.rows() if row["self"]}
    asked = f"select symbol, mode, sum(period) from '{path}' group by all"
    found = {(symbol, mode): float(total) for symbol, mode, total in duckdb.sql(asked).fetchall()}
    assert found == want
    children = {(row["symbol"], row["mode"]): row["children"] for row in report.rows()}
    asked = f"""
        with frames as (select distinct period, i, f.symbol as symbol, f.mode as mode from (
            select period, row_number() over () as i, unnest(stack) as f from '{path}'))
        select symbol, mode, sum(period) from frames group by all"""
    found = {(symbol, mode): float(total) for symbol, mode, total in duckdb.sql(asked).fetchall()}
    assert found == children


def test_polars_reads_every_column_as_it_was(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    content = recording.to_parquet(path)
    assert path.read_bytes() == content
    frame = pl.read_parquet(path)
    table, chains = recording.samples, recording.callchains
    assert frame.height == len(table)
    for name in table.columns:
        assert frame[name].to_list() == table[name].tolist(), name
    stacks = frame["stack"].to_list()
    symbols = chains.symbol.values().tolist()
    flat = [frame for stack in stacks for frame in stack]
    assert [len(stack) for stack in stacks] == (chains.offsets[1:] - chains.offsets[:-1]).tolist()
    assert [frame["symbol"] for frame in flat] == symbols
    assert [frame["ip"] for frame in flat] == chains.ip.tolist()
    by_id: dict[int, object] = {}
    for number, stack in zip(frame["stack_id"].to_list(), stacks, strict=True):
        assert by_id.setdefault(number, stack) == stack


def test_the_file_tells_where_it_is_from(both: Recording, tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    both.to_parquet(path)
    facts = json.loads(pq.read_schema(path).metadata[b"kvmperf"])
    assert facts["unit"] == "cpu-clock ns"
    assert both.header.hostname in facts["recorded on"]


def test_without_pyarrow_the_error_names_the_extra(
    both: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LibraryError, match=r"pyarrow .*kvmperf_magic\[tables\]"):
        both.to_parquet()
