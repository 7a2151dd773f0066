"""Every published recording in every format: none fails, and all weigh the same."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import kvmperf_magic
from kvmperf_magic.export.pprofproto import messages

_FOLDER = Path(os.environ.get("KVMPERF_FIXTURES", "/nonexistent")) / "recordings"
_NAMES = sorted(path.name for path in _FOLDER.iterdir()) if _FOLDER.is_dir() else ["none"]


@pytest.mark.fixtures
@pytest.mark.parametrize("name", _NAMES)
def test_weights_agree(name: str) -> None:
    recording = kvmperf_magic.open(_FOLDER / name)
    want = sum(recording.answerable().profile.period.tolist())
    folded = (line.rpartition(" ")[2] for line in recording.to_folded().splitlines())
    assert sum(map(int, folded)) == pytest.approx(want, rel=1e-12)
    scope = json.loads(recording.to_speedscope())
    assert sum(sum(lane["weights"]) for lane in scope["profiles"]) == want
    threads = json.loads(recording.to_gecko())["threads"]
    scale = {"tracing-ms": 10**6, "samples": 1}
    weights = (
        weight * scale[thread["samples"]["weightType"]]
        for thread in threads
        for weight in thread["samples"]["weight"]
    )
    assert sum(weights) == pytest.approx(want, rel=1e-9)
    pprof = messages()["Profile"].FromString(gzip.decompress(recording.to_pprof()))
    assert sum(sample.value[1] for sample in pprof.sample) == want
    table = pq.read_table(io.BytesIO(recording.to_parquet()), columns=["period"])
    assert sum(table["period"].to_pylist()) == sum(recording.profile.period.tolist())
    assert len(recording.to_csv()) > len(recording)
    assert len(json.loads(recording.to_json())) == len(recording)
