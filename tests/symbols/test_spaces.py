"""Address spaces by time against a model that applies one record after the other, byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from effort import grows_no_faster
from hypothesis import given, settings
from hypothesis import strategies as st
from perfrecord import comm_table, fork_table, mmap_table

from kvmperf_magic.symbols.spaces import AddressSpaces

PAGE = 4096
FILES = ["/a", "/b", "//anon"]
PIDS = (1, 2, 3)


@dataclass
class Event:
    time: int
    kind: str
    pid: int
    page: int = 0
    pages: int = 0
    file: int = 0
    offset: int = 0
    parent: int = 0


class Model:
    """What perf would hold after each record: pages of each process, one by one."""

    def __init__(self) -> None:
        self.pages: dict[int, dict[int, tuple[str, int]]] = {}

    def apply(self, event: Event) -> None:
        if event.kind == "mmap":
            mine = self.pages.setdefault(event.pid, {})
            for i in range(event.pages):
                mine[event.page + i] = (FILES[event.file], (event.offset + i) * PAGE)
        elif event.kind == "exec":
            self.pages[event.pid] = {}
        elif event.parent != event.pid:
            self.pages[event.pid] = dict(self.pages.get(event.parent, {}))


events = st.lists(
    st.one_of(
        st.builds(
            Event,
            time=st.just(0),
            kind=st.just("mmap"),
            pid=st.sampled_from(PIDS),
            page=st.integers(0, 12),
            pages=st.integers(1, 5),
            file=st.integers(0, len(FILES) - 1),
            offset=st.integers(0, 3),
        ),
        st.builds(Event, time=st.just(0), kind=st.just("exec"), pid=st.sampled_from(PIDS)),
        st.builds(
            Event,
            time=st.just(0),
            kind=st.just("fork"),
            pid=st.sampled_from(PIDS),
            parent=st.sampled_from(PIDS),
        ),
    ),
    max_size=14,
)


def spaces_of(happened: list[Event]) -> AddressSpaces:
    return AddressSpaces(
        mmap_table(
            [
                (e.time, e.pid, e.page * PAGE, e.pages * PAGE, e.offset * PAGE, FILES[e.file], 2)
                for e in happened
                if e.kind == "mmap"
            ]
        ),
        comm_table([(e.time, e.pid, True) for e in happened if e.kind == "exec"]),
        fork_table([(e.time, e.pid, e.parent) for e in happened if e.kind == "fork"]),
    )


def place(spaces: AddressSpaces, files: list[str], pid: int, when: int, address: int) -> Any:
    epoch = spaces.epoch_of(np.array([pid], np.int32), np.array([when], np.uint64))
    maps = spaces.maps(int(epoch[0]))
    at = int(maps.find(np.array([address], np.uint64))[0])
    if at < 0:
        return None
    return files[maps.filename[at]], int(maps.pgoff[at]) + address - int(maps.start[at])


@given(events)
@settings(max_examples=300, deadline=None)
def test_every_mapped_page_at_every_time(happened: list[Event]) -> None:
    for i, event in enumerate(happened):
        event.time = 10 * (i + 1)
    spaces = spaces_of(happened)
    files = list(dict.fromkeys(FILES[e.file] for e in happened if e.kind == "mmap"))
    model = Model()
    for event in happened:
        model.apply(event)
        for pid, pages in model.pages.items():
            for page, (file, offset) in pages.items():
                found = place(spaces, files, pid, event.time + 5, page * PAGE + 7)
                assert found is not None
                assert found[0] == file
                # where anonymous memory begins says nothing of what is in it
                assert found[1] == offset + 7 or file == "//anon"


@given(events)
@settings(max_examples=100, deadline=None)
def test_maps_are_sorted_and_apart(happened: list[Event]) -> None:
    for i, event in enumerate(happened):
        event.time = 10 * (i // 2)
    spaces = spaces_of(happened)
    for epoch in range(len(spaces)):
        maps = spaces.maps(epoch)
        assert (maps.start < maps.end).all()
        assert (maps.end[:-1] <= maps.start[1:]).all()


def test_what_was_mapped_before_an_exec_is_gone() -> None:
    spaces = spaces_of(
        [Event(10, "mmap", 1, 5, 2), Event(20, "exec", 1), Event(30, "mmap", 1, 9, 1, 1)]
    )
    assert place(spaces, ["/a", "/b"], 1, 15, 5 * PAGE) == ("/a", 0)
    assert place(spaces, ["/a", "/b"], 1, 35, 5 * PAGE) is None
    assert place(spaces, ["/a", "/b"], 1, 35, 9 * PAGE) == ("/b", 0)


def test_a_child_does_not_see_what_its_parent_maps_over_later() -> None:
    happened = [
        Event(10, "mmap", 1, 5, 2, 0),
        Event(20, "fork", 2, parent=1),
        Event(30, "mmap", 1, 5, 1, 1),
        Event(40, "mmap", 2, 20, 1, 1),
    ]
    spaces = spaces_of(happened)
    assert [place(spaces, ["/a", "/b"], pid, 50, 5 * PAGE) for pid in (1, 2)] == [
        ("/b", 0),
        ("/a", 0),
    ]


def test_children_that_map_nothing_share_an_epoch() -> None:
    forks = [Event(20 + i, "fork", 2 + i, parent=1) for i in range(50)]
    spaces = spaces_of([Event(10, "mmap", 1, 5, 2), *forks])
    epochs = spaces.epoch_of(np.arange(1, 52, dtype=np.int32), np.full(51, 1000, np.uint64))
    assert len(set(epochs.tolist())) == 1


def test_unknown_process_and_time_before_it() -> None:
    spaces = spaces_of([Event(10, "exec", 1), Event(20, "mmap", 1, 5, 2)])
    asked = np.array([1, 7, -1, 1], np.int32), np.array([5, 50, 50, 2**64 - 1], np.uint64)
    epochs = spaces.epoch_of(*asked)
    assert epochs[:3].tolist() == [-1, -1, -1]
    assert len(spaces.maps(int(epochs[3])).start) == 1
    assert not len(spaces.maps(-1).start)


def test_hostile_maps() -> None:
    top = 2**64 - PAGE
    spaces = AddressSpaces(
        mmap_table([(1, 1, top, 2**64 - 1, 0, "/a", 2), (2, 1, 0, 0, 0, "/b", 2)]),
        comm_table([]),
        fork_table([(3, 4, 4), (3, 5, 6), (3, 6, 5)]),
    )
    assert place(spaces, ["/a", "/b"], 1, 9, top + 5) == ("/a", 5)
    assert place(spaces, ["/a", "/b"], 5, 9, 0) is None


def short_processes(count: int) -> Callable[[], None]:
    """Finds where the samples of as many processes are, 50 of each."""
    forks = [(100 * i + 10, i + 10, 1) for i in range(count)]
    execs = [(100 * i + 20, i + 10, True) for i in range(count)]
    maps = [
        (100 * i + 30 + j, i + 10, PAGE * j, PAGE, 0, "/a", 2) for i in range(count) for j in (0, 5)
    ]
    tables = mmap_table(maps), comm_table(execs), fork_table(forks)
    random = np.random.default_rng(1)
    when = np.sort(random.integers(0, 100 * count, 50 * count)).astype(np.uint64)
    pid = (when // np.uint64(100) + np.uint64(10)).astype(np.int32)

    def find() -> None:
        epochs = AddressSpaces(*tables).epoch_of(pid, when)
        assert (epochs[when % np.uint64(100) > 40] >= 0).all()

    return find


def test_finding_grows_no_faster_than_processes_and_samples() -> None:
    assert grows_no_faster(short_processes(10_000), short_processes(1_000))


@settings(max_examples=150)
@given(events)
def test_columns_are_found_as_one_by_one(happened: list[Event]) -> None:
    for i, event in enumerate(happened):
        event.time = 10 * (i + 1)
    spaces = spaces_of(happened)
    pages = np.arange(20, dtype=np.uint64) * np.uint64(PAGE) + np.uint64(5)
    epochs = np.repeat(np.arange(-1, len(spaces), dtype=np.int32), len(pages))
    address = np.tile(pages, len(spaces) + 1)
    row, offset = spaces._find(epochs, address)
    for epoch in range(-1, len(spaces)):
        mine = epochs == epoch
        maps = spaces.maps(epoch)
        at = maps.find(pages)
        held = at >= 0
        assert (row[mine] >= 0).tolist() == held.tolist()
        assert row[mine][held].tolist() == maps.row[at[held]].tolist()
        expected = pages[held] - maps.start[at[held]] + maps.pgoff[at[held]]
        assert offset[mine][held].tolist() == expected.tolist()
    # what is found at once stays so; what is not may be of the program before an exec
    whole, _ = spaces.find(epochs, address)
    assert (whole[row >= 0] == row[row >= 0]).all()


def test_the_address_that_called_exec_has_its_name() -> None:
    """As long as the new program maps nothing there."""
    happened = [
        Event(10, "mmap", 1, page=1, pages=4),
        Event(20, "exec", 1),
        Event(30, "mmap", 1, page=3, pages=4, file=1),
    ]
    spaces = spaces_of(happened)
    epoch = spaces.epoch_of(np.full(3, 1, np.int32), np.full(3, 40, np.uint64))
    row, offset = spaces.find(epoch, np.array([1, 3, 9], np.uint64) * np.uint64(PAGE))
    assert row.tolist() == [0, 1, -1]
    assert offset[:2].tolist() == [0, 0]
