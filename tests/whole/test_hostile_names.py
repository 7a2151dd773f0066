"""A recording whose symbols, comms, files, VMs and host are hostile text, in all that is shown."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import driven

import kvmperf_magic as kvm
from kvmperf_magic.cli import main
from kvmperf_magic.demo import notebook
from kvmperf_magic.perfdata import features as fe
from kvmperf_magic.perfdata import records as r
from kvmperf_magic.perfdata.abi import (
    ATTR_SIZE,
    MISC_GUEST_USER,
    MISC_USER,
    AttrFlag,
    EventType,
    Feature,
    PerfEventAttr,
    RecordType,
    SampleType,
)
from kvmperf_magic.perfdata.writer import PerfDataWriter, WrittenEvent

pytestmark = [pytest.mark.chromium, pytest.mark.compiler]

NAMES = (
    "<script>window.owned=1</script>",
    "<img src=x onerror=window.owned=1>",
    "\"'><svg onload=window.owned=1>",
    "</title></style></script><script>window.owned=1</script>",
    "javascript:window.owned=1//${window.owned=1}{{window.owned=1}}",
    "\u202egnp.exe\u202c \u2066bidi\u2069",
    "\x1b]0;owned\x07\x1b[31mred\x9b1m\r\nline",
    "a&lt;b&amp;c\\u003cscript>",
    "x" * 4096,
)
TYPE = SampleType.IDENTIFIER | SampleType.IP | SampleType.TID | SampleType.TIME
TYPE |= SampleType.CPU | SampleType.PERIOD | SampleType.CALLCHAIN
HOST, VMM, ID = 100, 200, 7
BASE, STEP = 0x10000, 16


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose functions have these names, and whose own is hostile too."""
    folder = tmp_path_factory.mktemp("hostile")
    stands_for = [f"p{i}".ljust(len(name.encode()), "p") for i, name in enumerate(NAMES)]
    code = "".join(
        f".globl {name}\n.type {name},@function\n.p2align 4\n{name}: ret\n.size {name},{STEP}\n"
        f".fill {STEP - 1},1,0x90\n"
        for name in stands_for
    )
    (folder / "names.s").write_text(f".section .text\n{code}")
    built = folder / "names.so"
    options = ["-shared", "-nostdlib", f"-Wl,-Ttext={BASE:#x}", "-Wl,--hash-style=sysv"]
    subprocess.run(["gcc", *options, "-o", built, folder / "names.s"], check=True)
    content = built.read_bytes()
    for placeholder, name in zip(stands_for, NAMES, strict=True):
        content = content.replace(placeholder.encode() + b"\0", name.encode() + b"\0")
    path = folder / "<img src=x onerror=window.owned=1>"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def recordings(elf: Path) -> list[Any]:
    """Before and after, host and guest in each."""
    return [
        kvm.open(written(elf.parent / f"{side}.data", elf, weight), guest_elf=elf, cache=False)
        for side, weight in (("before", 1), ("after", 40))
    ]


def written(path: Path, elf: Path, weight: int) -> Path:
    attr = PerfEventAttr()
    attr.type, attr.size, attr.config = EventType.SOFTWARE, ATTR_SIZE, 0
    attr.sample_period, attr.sample_type = 1_000_000, TYPE
    attr.flags = AttrFlag.SAMPLE_ID_ALL | AttrFlag.MMAP | AttrFlag.COMM
    event = WrittenEvent(f"cpu-clock{NAMES[0]}", attr, (ID,))
    trailer = r.sample_id(TYPE, id=ID)
    with PerfDataWriter(path, [event]) as writer:
        for i, name in enumerate(NAMES):
            pid = HOST + i
            writer.write(comm(pid, name, trailer))
            writer.write(r.mmap2(pid, pid, 0x40000, 1 << 20, 0, str(elf), trailer=trailer))
        writer.write(r.comm(VMM, VMM, "vmm", trailer=trailer))
        for n in range(400):
            i = n % len(NAMES)
            guest, at = n // len(NAMES) % 2, STEP * i
            writer.write(
                r.sample(
                    TYPE,
                    misc=MISC_GUEST_USER if guest else MISC_USER,
                    ip=BASE + at if guest else 0x40000 + BASE + at,
                    pid=VMM if guest else HOST + i,
                    tid=VMM if guest else HOST + i,
                    time=10**12 + n * 10**7,
                    id=ID,
                    cpu=0,
                    period=10**6 * (weight if i == 0 else 1),
                    callchain=(),
                )
            )
        vm = {"pid": VMM, "name": NAMES[1], "vcpus": [{"id": 0, "tid": VMM, "name": NAMES[2]}]}
        writer.finish(
            {
                Feature.HOSTNAME: fe.encode_string(NAMES[3]),
                Feature.CPUDESC: fe.encode_string(NAMES[1]),
                Feature.CMDLINE: fe.encode_cmdline(list(NAMES)),
                Feature.EVENT_DESC: fe.encode_event_desc([event.desc]),
                Feature.KVMPERF: fe.encode_kvmperf({"machines": [vm]}),
            }
        )
    return path


def comm(pid: int, name: str, trailer: bytes) -> bytes:
    """No kernel writes names so long, but a file may hold them."""
    text = name.encode()
    padded = text.ljust(len(text) // 8 * 8 + 8, b"\0")
    return r.record(RecordType.COMM, 0, struct.pack("<II", pid, pid) + padded + trailer)


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with driven() as browser:
        yield browser.new_page(viewport={"width": 1300, "height": 900})


def harmless(page: Any, document: Path) -> str:
    """Opens a page, moves about in it, and gives its text; nothing of the recording has run."""
    page.goto(document.as_uri())
    page.wait_for_timeout(300)
    for x in range(60, 1260, 150):
        for y in range(60, 880, 90):
            page.mouse.move(x, y)
    page.mouse.click(500, 400)
    page.wait_for_timeout(200)
    assert page.evaluate("window.owned") is None
    assert (
        page.evaluate("document.querySelectorAll('img[src=x],svg[onload],[onerror]').length") == 0
    )
    return str(page.evaluate("document.documentElement.textContent"))


def test_they_are_the_names_of_the_samples(recordings: list[Any]) -> None:
    samples = recordings[0].samples
    assert {*samples["symbol"].tolist()} == {*NAMES}
    assert {*samples["comm"].tolist()} == {*NAMES, "vmm"}
    assert {*samples["machine"].tolist()} == {"host", NAMES[1]}


@pytest.mark.parametrize("what", ["report", "flame.html", "flame.svg", "sandwich", "diff", "heat"])
def test_no_page_runs_them(what: str, recordings: list[Any], page: Any, tmp_path: Path) -> None:
    before, after = recordings
    document = tmp_path / (what if "." in what else f"{what}.html")
    if what == "report":
        after.report().to_html(document)
    elif what == "diff":
        kvm.diff(before, after).flamegraph().save(document)
    elif what == "heat":
        after.heatmap(NAMES[0]).save(document)
    elif what == "sandwich":
        after.flamegraph().sandwich(NAMES[0]).save(document)
    else:
        after.flamegraph().save(document)
    assert "<script>window.owned" in harmless(page, document)  # shown as it is


STEERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def test_no_text_steers_a_terminal(
    recordings: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = recordings
    steering = NAMES[6]
    changed = kvm.diff(before, after)
    answers = [after, after.summary(), after.events, after.lost, after.samples, changed]
    answers += [after.report(sort="comm,dso,symbol,machine"), changed.flamegraph()]
    answers += [after.flamegraph(), after.flamegraph().sandwich(steering), after.heatmap(steering)]
    texts = [*map(repr, answers), repr(after.timeline(steering))]
    file = str(after.path)
    for options in ([], ["-e", steering], ["--vm", steering], ["--export", f"{steering}.svg"]):
        main(["report", file, "--no-cache", *options])
        texts += capsys.readouterr()
    assert "owned" in "".join(texts)
    assert [text for text in texts if STEERS.search(text)] == []


@pytest.mark.parametrize(
    "told",
    [
        {"machines": 5, "progress": 5, "raw": [float("inf"), 1], "host": []},
        {"machines": [5, {"pid": VMM}, {"pid": [1], "name": "x"}], "progress": {"lost": "x"}},
        {"machines": [{"pid": VMM, "name": [], "vcpus": [{"id": 1 << 40, "tid": VMM}]}]},
    ],
    ids=["no machines", "damaged ones", "numbers that cannot be"],
)
def test_nonsense_in_our_own_section(
    told: dict[str, Any], elf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fe, "encode_kvmperf", lambda _: json.dumps(told).encode())
    recording = kvm.open(written(tmp_path / "data", elf, 1), guest_elf=elf, cache=False)
    assert recording.machines == []
    assert recording.lost.complete == 1
    assert {*recording.report(sort="symbol,machine").table["symbol"]} == {*NAMES}


BOOK = [
    "%load_ext kvmperf_magic\nimport kvmperf_magic as kvm",
    "before, after = (kvm.open(f'{s}.data', guest_elf=ELF) for s in ('before', 'after'))",
    "before",
    "%kvm_report after --heatmap --sort comm,dso,symbol,machine",
    "%kvm_diff before after",
    "after.samples",
]


def test_no_notebook_runs_them(recordings: list[Any], elf: Path, page: Any, tmp_path: Path) -> None:
    for recording in recordings:
        name = Path(recording.path).name
        (tmp_path / name).write_bytes(Path(recording.path).read_bytes())
    cells = [f"ELF = {str(elf)!r}", *BOOK]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(book, tmp_path / "book.ipynb")
    notebook.execute(tmp_path / "book.ipynb", tmp_path / "done.ipynb")
    notebook.convert(tmp_path / "done.ipynb", tmp_path / "page.html")
    assert "<script>window.owned" in harmless(page, tmp_path / "page.html")
