"""Parquet: one file, a row a sample, each with its stack. For DuckDB, polars, pandas and fleets.

One file rather than two: any number of recordings can be read as one data set
(`select symbol, sum(period) from 'recordings/*.parquet' group by symbol`) and no stack's number
means another stack in the next file. Repeated names and stacks cost next to nothing compressed.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from kvmperf_magic.callchains import Callchains
from kvmperf_magic.errors import missing
from kvmperf_magic.export.lanes import About
from kvmperf_magic.modes import MODES
from kvmperf_magic.profile.groups import group, within
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.table import Categorical, Table

_ROWS = 1 << 17  # a row group: bounds the memory that stacks take while they are written


def parquet(profile: Profile, samples: Table, chains: Callchains, about: About) -> bytes:
    """The columns of `samples`; `stack_id`, equal where stacks are; and `stack`, a list of structs
    (symbol, dso, mode, ip), leaf first.

    `chains` has the frames of one sample for each stack that is used, in the order of
    `group(profile.stack)`. The schema's metadata key `kvmperf` is JSON: what is known of the
    recording and the unit of the period.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise missing("pyarrow", "tables") from None
    table = samples.to_arrow()
    stack_id = group(profile.stack).ids.astype(np.int32)
    facts = {"name": about.name, "unit": profile.unit, **about.facts}
    if about.wall_offset is not None:
        facts["wall_offset_ns"] = str(about.wall_offset)
    stack_type = pa.list_(
        pa.struct(
            [
                ("symbol", pa.dictionary(pa.int32(), pa.string())),
                ("dso", pa.dictionary(pa.int32(), pa.string())),
                ("mode", pa.dictionary(pa.int32(), pa.string())),
                ("ip", pa.uint64()),
            ]
        )
    )
    schema = pa.schema(
        [*table.schema, pa.field("stack_id", pa.int32()), pa.field("stack", stack_type)],
        metadata={"kvmperf": json.dumps(facts)},
    )
    mode = Categorical(chains.mode.astype(np.int32), list(MODES))
    strings = [_dictionary(pa, column) for column in (chains.symbol, chains.dso, mode)]
    out = io.BytesIO()
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for start in range(0, len(profile), _ROWS):
            ids = stack_id[start : start + _ROWS].astype(np.int64)
            frames = within(chains.offsets, ids)
            lengths = np.diff(chains.offsets)[ids]
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            columns = [
                pa.DictionaryArray.from_arrays(pa.array(codes[frames]), values)
                for codes, values in strings
            ]
            items = pa.StructArray.from_arrays(
                [*columns, pa.array(chains.ip[frames])], fields=list(stack_type.value_type)
            )
            part = table.slice(start, _ROWS)
            arrays = [*part.columns, pa.array(ids.astype(np.int32))]
            stacks = pa.ListArray.from_arrays(pa.array(offsets), items)
            writer.write_table(pa.table([*arrays, stacks], schema=schema))
    return out.getvalue()


def _dictionary(pa: Any, column: Categorical) -> tuple[Any, Any]:
    return column.codes, pa.array(column.categories, type=pa.string())
