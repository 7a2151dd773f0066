"""speedscope's JSON against the schema that speedscope ships, and against the folded stacks."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
from consumers import speedscope_schema
from names import HOSTILE, paths_of

from kvmperf_magic.export.lanes import About
from kvmperf_magic.export.speedscope import speedscope
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.recording import Recording


def sums(made: dict[str, Any]) -> Counter[tuple[str, ...]]:
    names = [frame["name"] for frame in made["shared"]["frames"]]
    found: Counter[tuple[str, ...]] = Counter()
    for profile in made["profiles"]:
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] == sum(profile["weights"])
        for stack, weight in zip(profile["samples"], profile["weights"], strict=True):
            found[tuple(names[i] for i in stack)] += weight
    return found


def test_recordings_satisfy_the_schema_and_sum_up_as_the_folded_stacks(
    recording: Recording, consumers: Path
) -> None:
    made = json.loads(recording.to_speedscope())
    jsonschema.validate(made, speedscope_schema(consumers))
    found = sums(made)
    assert found == paths_of(recording.to_folded())
    assert found.total() == recording.answerable().profile.total


def test_the_schema_refuses_what_is_wrong(both: Recording, consumers: Path) -> None:
    made = json.loads(both.to_speedscope())
    made["profiles"][0]["unit"] = "cycles"
    error = jsonschema.Draft7Validator(speedscope_schema(consumers)).iter_errors(made)
    assert next(error, None) is not None


def test_hostile_names_and_big_periods_survive(mixed: Profile, consumers: Path) -> None:
    made = json.loads(speedscope(mixed, About(HOSTILE[2], {})))
    jsonschema.validate(made, speedscope_schema(consumers))
    assert made["name"] == HOSTILE[2]
    assert {frame["name"] for frame in made["shared"]["frames"]} >= set(HOSTILE)
    assert {frame.get("file") for frame in made["shared"]["frames"]} >= {
        f"/opt/{name}" for name in HOSTILE
    }
    assert sums(made).total() == sum(mixed.period.tolist())


def test_guests_are_told_from_the_host(mixed: Profile) -> None:
    made = json.loads(speedscope(mixed, About("mixed", {})))
    names = [profile["name"] for profile in made["profiles"]]
    assert {"web1 vCPU 0 (guest)", "web1 vCPU 1 (guest)", "qemu 50/51 (host)"} <= set(names)
    assert "db vCPU ? (thread 61) (guest)" in names
    found = sums(made)
    assert found["[guest user]", "schedule"] == 3000  # the VMM's frames are no part of a guest
    assert found["entry", "schedule"] == (1 << 53) + 4
    assert made["profiles"][0]["unit"] == "nanoseconds"
    web = made["profiles"][names.index("web1 vCPU 0 (guest)")]
    first = [made["shared"]["frames"][stack[0]]["name"] for stack in web["samples"]]
    assert set(first) == {"[guest kernel]", "[guest user]"}


def test_a_path_is_written_and_compressed_by_its_suffix(both: Recording, tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.speedscope.json", tmp_path / "a.speedscope.json.gz"
    text = both.to_speedscope(plain)
    both.to_speedscope(packed)
    assert plain.read_text() == text == gzip.decompress(packed.read_bytes()).decode()


def test_a_view_without_samples_is_an_empty_file(both: Recording, consumers: Path) -> None:
    made = json.loads(both.filter(pid=2**30).to_speedscope())
    jsonschema.validate(made, speedscope_schema(consumers))
    assert made["profiles"] == []
