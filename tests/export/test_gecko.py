"""The Firefox Profiler's JSON, loaded by Mozilla's profiler-cli."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from consumers import FirefoxProfiler
from names import HOSTILE, paths_of

from kvmperf_magic.export.gecko import gecko
from kvmperf_magic.export.lanes import About
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.recording import Recording


def sums(made: dict[str, Any]) -> Counter[tuple[str, ...]]:
    """Sums of periods by path, read as the format's types say."""
    strings = made["shared"]["stringArray"]
    found: Counter[tuple[str, ...]] = Counter()
    for thread in made["threads"]:
        stacks, frames, functions = (
            thread[table] for table in ("stackTable", "frameTable", "funcTable")
        )
        paths: list[tuple[str, ...]] = []
        for prefix, frame in zip(stacks["prefix"], stacks["frame"], strict=True):
            above = () if prefix is None else paths[prefix]  # a prefix stands before
            paths.append((*above, strings[functions["name"][frames["func"][frame]]]))
        samples = thread["samples"]
        scale = 10**6 if samples["weightType"] == "tracing-ms" else 1
        for stack, weight in zip(samples["stack"], samples["weight"], strict=True):
            found[paths[stack]] += round(weight * scale)
        for name, table in thread.items():
            if isinstance(table, dict):
                lengths = {len(c) for c in table.values() if isinstance(c, list)}
                assert lengths <= {table["length"]}, name
    return found


def tree_sums(node: dict[str, Any], path: tuple[str, ...] = ()) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for child in node.get("children", ()):
        below = (*path, child["name"])
        if child["selfSamples"]:
            found[below] += round(child["selfSamples"] * 10**6)
        found += tree_sums(child, below)
    return found


def test_the_profiler_shows_what_was_recorded(
    recording: Recording, consumers: Path, tmp_path: Path
) -> None:
    path = tmp_path / "profile.gecko.json.gz"
    made = json.loads(recording.to_gecko(path))
    view = recording.answerable()
    folded = paths_of(view.to_folded())
    assert sums(made) == folded
    with FirefoxProfiler(path, consumers) as profiler:
        info = profiler.ask("profile", "info", "--all")
        threads = [thread for process in info["processes"] for thread in process["threads"]]
        assert len(threads) == info["threadCount"] == len(made["threads"])
        shown: Counter[tuple[str, ...]] = Counter()
        modes: set[str] = set()
        for thread in threads:
            handle = ("--thread", thread["threadHandle"])
            deep = ("--max-lines", "100000")
            answer = profiler.ask("thread", "samples-top-down", *handle, *deep)
            shown += tree_sums(answer["regularCallTree"])
            info = profiler.ask("thread", "samples", *handle)
            modes |= {name for name in json.dumps(info).split('"') if name in _MODES}
        assert shown == folded
        assert modes == {*view.samples["mode"].tolist()}


_MODES = {"host-kernel", "host-user", "hypervisor", "guest-kernel", "guest-user"}


def test_hostile_names_survive_the_profiler(
    mixed: Profile, consumers: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mixed.gecko.json"
    text = gecko(mixed, About("mixed", {"command": HOSTILE[0]}))
    path.write_text(text)
    made = json.loads(text)
    assert sums(made).total() == pytest.approx(mixed.total, rel=1e-15)
    with FirefoxProfiler(path, consumers) as profiler:
        info = profiler.ask("profile", "info", "--all")
        processes = {process["name"]: process for process in info["processes"]}
        assert set(HOSTILE) | {"qemu", "web1 (guest)", "db (guest)"} == set(processes)
        web = [thread["name"] for thread in processes["web1 (guest)"]["threads"]]
        assert sorted(web) == ["vCPU 0", "vCPU 1"]
        names = set()
        for process in processes.values():
            for thread in process["threads"]:
                answer = profiler.ask("thread", "functions", "--thread", thread["threadHandle"])
                names |= {function["name"] for function in answer["functions"]}
    assert names >= {*HOSTILE, "[guest kernel]", "[guest user]", "main", "schedule"}


def test_five_categories_in_colours_of_their_own(mixed: Profile) -> None:
    meta = json.loads(gecko(mixed, About("mixed", {})))["meta"]
    colours = {c["name"]: c["color"] for c in meta["categories"]}
    assert set(colours) == {"Other", *_MODES}
    assert len(set(colours.values())) == 6
    assert colours["Other"] == "grey"


def test_counts_are_weights_as_they_are(mixed: Profile) -> None:
    from dataclasses import replace

    made = json.loads(gecko(replace(mixed, unit="cycles"), About("mixed", {})))
    assert {thread["samples"]["weightType"] for thread in made["threads"]} == {"samples"}
    assert sums(made).total() == sum(mixed.period.tolist())


def test_a_view_without_samples_loads(both: Recording) -> None:
    made = json.loads(both.filter(pid=2**30).to_gecko())
    assert made["threads"] == []
