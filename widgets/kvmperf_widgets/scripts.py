"""The scripts and styles that are shipped as files."""

from __future__ import annotations

from importlib.resources import files


def source(*names: str) -> str:
    """The text of these files, one after the other."""
    folder = files("kvmperf_widgets")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
