"""Programs and definitions that we did not write, which read what the exports make."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_PPROF_PROTO = Path("/usr/share/gocode/src/github.com/google/pprof/proto")


@cache
def npm_package(name: str, version: str, folder: Path) -> Path:
    """The files of an npm package, unpacked below `folder`."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip(f"no npm and node to get {name} with")
    folder.mkdir(exist_ok=True)
    command = [npm, "pack", "--silent", f"{name}@{version}"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        pytest.skip(f"npm cannot fetch {name}: {done.stderr.strip()[-200:]}")
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    return folder / "unpacked" / "package"


def speedscope_schema(folder: Path) -> dict[str, Any]:
    """The JSON schema that speedscope ships."""
    package = npm_package("speedscope", "1.25.0", folder / "speedscope")
    schema: dict[str, Any] = json.loads(
        (package / "dist/release/file-format-schema.json").read_text()
    )
    return schema


class FirefoxProfiler:
    """Mozilla's profiler-cli with one profile loaded: the code behind profiler.firefox.com."""

    def __init__(self, profile: Path, folder: Path) -> None:
        package = npm_package("@firefox-devtools/profiler-cli", "0.10.0", folder / "profiler-cli")
        self._program = package / "dist/profiler-cli.js"
        self._home = profile.parent
        self._session = "try-0"
        for attempt in range(20):
            # it waits half a second for its daemon, too short on a busy machine
            self._session = f"try-{attempt}"
            done = self._ran("load", str(profile))
            if "did not become ready" not in done.stderr:
                break
        assert done.returncode == 0, done.stderr + done.stdout

    def _ran(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", str(self._program), *arguments, "--session", self._session],
            env={**os.environ, "HOME": str(self._home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def ask(self, *arguments: str) -> dict[str, Any]:
        done = self._ran(*arguments, "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def __enter__(self) -> FirefoxProfiler:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(
            ["node", str(self._program), "stop", "--all"],
            env={**os.environ, "HOME": str(self._home)},
            capture_output=True,
            check=False,
            timeout=60,
        )


def pprof_descriptors(folder: Path) -> Any:
    """pprof's own profile.proto, compiled: a FileDescriptorSet."""
    from google.protobuf import descriptor_pb2

    if shutil.which("protoc") is None:
        pytest.skip("no protoc (Debian: protobuf-compiler)")
    if not (_PPROF_PROTO / "profile.proto").exists():
        pytest.skip("no profile.proto (Debian: golang-github-google-pprof-dev)")
    out = folder / "profile.descriptors"
    subprocess.run(
        ["protoc", f"--proto_path={_PPROF_PROTO}", f"--descriptor_set_out={out}", "profile.proto"],
        check=True,
        capture_output=True,
    )
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def pprof_program() -> list[str]:
    """pprof itself, empty where it is not installed."""
    if found := shutil.which("pprof"):
        return [found]
    return [go, "tool", "pprof"] if (go := shutil.which("go")) else []
