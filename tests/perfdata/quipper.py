"""Reads what quipper (perf_data_converter) printed of a recording: protobuf text."""

from __future__ import annotations

import ast
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Message = dict[str, list[Any]]


def events(path: Path) -> Iterator[tuple[str, Message]]:
    """(kind, fields) of every record: `sample_event`, `mmap_event`, ..., in the file's order."""
    stack: list[Message] = [{}]
    with gzip.open(path, "rt") as lines:
        for raw in lines:
            line = raw.strip()
            if line.endswith("{"):
                inner: Message = {}
                stack[-1].setdefault(line[:-1].strip(), []).append(inner)
                stack.append(inner)
            elif line == "}":
                stack.pop()
            elif line:
                name, value = line.split(": ", 1)
                stack[-1].setdefault(name, []).append(_value(value))
    for event in stack[0]["events"]:
        for kind, messages in event.items():
            if kind.endswith("_event"):
                yield kind, messages[0]


def _value(text: str) -> Any:
    if text.startswith('"'):
        return ast.literal_eval(f"b{text}").decode("utf-8", "replace")
    return {"true": True, "false": False}.get(text) if text in ("true", "false") else number(text)


def number(text: str) -> int | str:
    """An integer, or the name of an enum as it stands."""
    return int(text) if text.lstrip("-").isdigit() else text
