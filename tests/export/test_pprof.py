"""pprof's files, read by pprof's own definition of them and by pprof."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from consumers import pprof_descriptors, pprof_program
from names import HOSTILE, paths_of

from kvmperf_magic.callchains import Callchains
from kvmperf_magic.errors import LibraryError
from kvmperf_magic.export.lanes import About
from kvmperf_magic.export.pprof import pprof
from kvmperf_magic.export.pprofproto import MESSAGES, messages
from kvmperf_magic.profile.groups import group
from kvmperf_magic.profile.profile import Profile
from kvmperf_magic.recording import Recording


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pprof_descriptors(tmp_path_factory.mktemp("proto"))


def parse(definition: Any, data: bytes) -> Any:
    """The profile, by pprof's definition; every reference in it must lead somewhere."""
    from google.protobuf import message_factory

    classes = message_factory.GetMessages(list(definition.file))
    made = classes["perftools.profiles.Profile"].FromString(gzip.decompress(data))
    assert made.string_table[0] == ""
    mappings = {mapping.id: mapping for mapping in made.mapping}
    functions = {function.id for function in made.function}
    locations = {location.id for location in made.location}
    assert len(mappings) == len(made.mapping)
    assert len(functions) == len(made.function)
    assert len(locations) == len(made.location)
    assert not {0} & (set(mappings) | functions | locations)
    for location in made.location:
        assert {line.function_id for line in location.line} <= functions
        if location.mapping_id:
            mapping = mappings[location.mapping_id]
            assert mapping.memory_start <= location.address < mapping.memory_limit
    for sample in made.sample:
        assert set(sample.location_id) <= locations
        assert len(sample.value) == len(made.sample_type)
    return made


def sums(made: Any) -> Counter[tuple[str, ...]]:
    names = {f.id: made.string_table[f.name] for f in made.function}
    where = {at.id: names[at.line[0].function_id] for at in made.location}
    found: Counter[tuple[str, ...]] = Counter()
    for sample in made.sample:
        found[tuple(where[i] for i in reversed(sample.location_id))] += sample.value[1]
    return found


def labels(made: Any, key: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for sample in made.sample:
        texts = {made.string_table[at.key]: made.string_table[at.str] for at in sample.label}
        found[texts.get(key, "")] += sample.value[1]
    return found


def exported(profile: Profile, about: About) -> bytes:
    """A hand-written profile with an address for each frame."""
    import numpy as np

    frames = profile.stacks.frames
    ip = frames.astype(np.uint64) * np.uint64(16) + np.uint64(1 << 63)
    rows = group(profile.stack).row
    chains = Callchains.of(profile.select(rows), ip, profile.frames.mode[frames])
    return pprof(profile, chains, about)


def test_our_table_of_fields_is_pprofs(definition: Any) -> None:
    (file,) = definition.file
    theirs = {message.name: message for message in file.message_type}
    assert set(theirs) == set(MESSAGES)
    for name, message in theirs.items():
        ours = messages()[name].DESCRIPTOR
        for field in message.field:
            same = ours.fields_by_name[field.name]
            kind = same.message_type.name if same.message_type else ""
            assert same.number == field.number
            assert same.type == field.type
            assert same.is_repeated == (field.label == field.LABEL_REPEATED)
            assert kind == field.type_name.rpartition(".")[2]
        # newer ones may have fields that this definition has not
        assert len(ours.fields) == len(message.field)


def test_recordings_sum_up_as_the_folded_stacks(recording: Recording, definition: Any) -> None:
    made = parse(definition, recording.to_pprof())
    view = recording.answerable()
    profile = view.profile
    assert sums(made) == paths_of(view.to_folded())
    assert sum(sample.value[0] for sample in made.sample) == len(profile)
    for key in ("mode", "machine", "comm"):
        weights: Counter[str] = Counter()
        table = view.samples
        for value, period in zip(table[key].tolist(), table["period"].tolist(), strict=True):
            weights[value] += period
        assert labels(made, key) == weights
    types = [(made.string_table[t.type], made.string_table[t.unit]) for t in made.sample_type]
    assert types == [("samples", "count"), ("cpu-clock", "nanoseconds")]
    assert made.duration_nanos == int(profile.time[-1]) - int(profile.time[0])
    leaves = {int(ip) for ip in profile.ip}
    by_id = {at.id: at.address for at in made.location}
    assert {by_id[sample.location_id[0]] for sample in made.sample} <= leaves


def test_hostile_names_and_numbers_survive(mixed: Profile, definition: Any) -> None:
    made = parse(definition, exported(mixed, About("mixed", {"command": HOSTILE[1]}, 5)))
    names = {made.string_table[function.name] for function in made.function}
    assert names >= set(HOSTILE)
    files = {made.string_table[mapping.filename] for mapping in made.mapping}
    assert files >= {f"/opt/{name}" for name in HOSTILE}
    assert sums(made).total() == sum(mixed.period.tolist())
    assert sums(made)["[guest user]", "schedule"] == 3000
    vcpus = labels(made, "vcpu")
    assert vcpus["0"] + vcpus["1"] == 1000 + sum(20 + i for i in range(len(HOSTILE)))
    assert labels(made, "mode")["guest-user"] == 3000
    assert made.string_table[made.comment[0]] == f"command: {HOSTILE[1]}"
    assert made.time_nanos == 10**15 + 7 + 5


def test_a_view_without_samples_is_a_profile(both: Recording, definition: Any) -> None:
    assert not parse(definition, both.filter(pid=2**30).to_pprof()).sample


def ask_pprof(program: list[str], path: Path, profile: Profile) -> None:
    """What pprof itself says of the same file."""

    def ask(*options: str) -> str:
        command = [*program, *options, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "Type: cpu-clock" in ask("-top")
    total = f"Total {profile.total / 1e6:.1f}ms"
    assert total in ask("-tags", "-unit=ms").replace(": Total ", "Total ")
    assert "guest-user" in ask("-tags")


def test_a_file_is_what_is_returned(both: Recording, definition: Any, tmp_path: Path) -> None:
    path = tmp_path / "both.pb.gz"
    both.to_pprof(path)
    profile = both.answerable().profile
    assert sums(parse(definition, path.read_bytes())).total() == profile.total
    if program := pprof_program():  # 460 MB on Debian: asked where it is, never a must
        ask_pprof(program, path, profile)


def test_without_protobuf_the_error_names_the_extra(
    both: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages.cache_clear()
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(LibraryError, match=r"protobuf .*kvmperf_magic\[export\]"):
        both.to_pprof()
