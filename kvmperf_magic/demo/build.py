"""Builds the two binaries that are shipped beside guest.c: `python -m kvmperf_magic.demo.build`.

They are committed, so nobody needs a compiler; a test rebuilds them where there is one.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
from pathlib import Path

from kvmperf_magic.demo.image import BINARIES, GUEST, HOST
from kvmperf_magic.errors import KvmperfError

SOURCE = Path(__file__).with_name("guest.c")

# General registers only: the guest's CPU state has no SSE set up. Frame pointers: so that a
# host recording with callchains shows who calls whom. The .control address is image.CONTROL.
FLAGS = shlex.split(
    "-O2 -std=gnu11 -Wall -Wextra -Werror -ffreestanding -nostdlib -static -fno-pic -no-pie "
    "-mgeneral-regs-only -mno-red-zone -fno-omit-frame-pointer -fno-stack-protector "
    "-fcf-protection=none -fno-asynchronous-unwind-tables -fno-tree-vectorize -fno-unroll-loops "
    "-fno-tree-loop-distribute-patterns -Wl,-z,noseparate-code -Wl,-z,max-page-size=4096 "
    "-Wl,-Ttext-segment=0x400000 -Wl,--section-start=.control=0x5fc000 "
    "-Wl,--build-id=sha1 -Wl,-z,noexecstack"
)


def build(folder: Path, compiler: str | None = None) -> dict[str, Path]:
    """Compiles guest.c into `folder`; the paths by name.

    Raises KvmperfError where there is no compiler or it fails.
    """
    compiler = compiler or next((c for c in ("gcc", "cc", "clang") if shutil.which(c)), None)
    if compiler is None:
        raise KvmperfError("no C compiler", "apt install gcc")
    built = {}
    for name, defines in ((GUEST, []), (HOST, ["-DHOST"])):
        out = folder / name
        # a relative source name: the path of the checkout must not get into the binary
        command = [compiler, *FLAGS, *defines, "-o", str(out.absolute()), SOURCE.name]
        done = subprocess.run(
            command, cwd=SOURCE.parent, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise KvmperfError(f"{compiler} cannot build {name}: {done.stderr.strip()}")
        built[name] = out
    return built


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kvmperf_magic.demo.build", description=__doc__)
    parser.add_argument("--folder", type=Path, default=BINARIES)
    parser.add_argument("--compiler")
    options = parser.parse_args()
    for path in build(options.folder, options.compiler).values():
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
