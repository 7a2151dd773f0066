"""What the tests need of a machine, asked once, and the perf program as an oracle."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import linuxguest
import pytest
from hypothesis import settings
from IPython.core.interactiveshell import InteractiveShell
from perfpython import perf_python

# how long an example takes says nothing on a shared machine
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def _kvm() -> bool:
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def _root() -> bool:
    if os.geteuid() == 0:
        return True
    try:
        return int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) <= -1
    except OSError:
        return False


def _fixtures() -> Path | None:
    folder = Path(os.environ.get("KVMPERF_FIXTURES", "/nonexistent"))
    return folder if (folder / "recordings").is_dir() else None


def _which(*names: str) -> Callable[[], bool]:
    return lambda: any(shutil.which(name) for name in names)


NEEDS: dict[str, tuple[Callable[[], object], str]] = {
    "perf": (_which("perf"), "no perf program (Debian: linux-perf)"),
    "kvm": (_kvm, "no usable /dev/kvm"),
    "root": (_root, "needs root or perf_event_paranoid <= -1"),
    "qemu": (_which("qemu-system-x86_64"), "no qemu-system-x86_64 (Debian: qemu-system-x86)"),
    "chromium": (_which(*browser.NAMES), "no Chromium"),
    "fixtures": (_fixtures, "KVMPERF_FIXTURES names no folder with recordings"),
    "kernels": (linuxguest.available, "no kernels for guests (run .ci/guest-kernels)"),
    "compiler": (_which("cc", "gcc", "clang"), "no C compiler"),
    "perfpython": (perf_python, "no Python 3.12 or later that has -X perf"),
    "rust": (_which("rustc"), "no rustc"),
}


@pytest.hookimpl(tryfirst=True)  # the groups are there when xdist looks at them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    met = {name: bool(have()) for name, (have, _) in NEEDS.items()}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
        for name, (_, reason) in NEEDS.items():
            if not met[name] and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))
    items.sort(key=lambda item: not _group(item).startswith(_SLOW))  # so that all end together


_SLOW = ("guests", "lab", "tests/whole", "tests/widgets")


def _group(item: pytest.Item) -> str:
    """What runs in one process: a file, or all that shares what is slow to start."""
    if item.get_closest_marker("kernels"):
        return "guests"
    return "lab" if "lab" in getattr(item, "fixturenames", ()) else item.nodeid.split("::")[0]


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of published recordings (mark the test `fixtures`)."""
    folder = _fixtures()
    assert folder is not None
    return folder


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A shell with the extension, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "kvmperf_magic")
    yield shell
    shell.run_line_magic("unload_ext", "kvmperf_magic")
    InteractiveShell.clear_instance()


@pytest.fixture(scope="module", name="browser")
def driven_browser() -> Iterator[Any]:
    """The browser as playwright drives it (mark the test `chromium`)."""
    with browser.driven() as found:
        yield found


@pytest.fixture(scope="session")
def perf() -> Callable[..., str]:
    """Runs perf and gives what it prints (mark the test `perf`)."""

    def run(*arguments: str | Path, check: bool = True) -> str:
        # perf decides on a pager, colours and its config by the environment: keep all of it out
        environment = {**os.environ, "PERF_CONFIG": "/dev/null", "LC_ALL": "C", "PERF_PAGER": "cat"}
        done = subprocess.run(
            ["perf", *map(str, arguments)],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=120,
            env=environment,
        )
        if check and done.returncode:
            raise AssertionError(f"perf {arguments} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    return run
