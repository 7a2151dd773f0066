"""Something to sample: one busy process a CPU, calling through a few functions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BUSY = """
def leaf(n):
    return sum(i * i for i in range(n))
def middle(n):
    return leaf(n) + leaf(n // 2)
while True:
    middle(2000); sorted(range(1000), key=lambda i: -i); open('/dev/null').close()
"""
_SOURCE = """
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <vector>
int f() {
    std::map<std::string, std::vector<int>> m;
    std::regex r("a+b");
    std::vector<std::function<int(int)>> v;
    v.push_back([](int x) { return x * 2; });
    std::sort(m["x"].begin(), m["x"].end());
    return std::regex_match("aab", r) + v[0](3);
}
"""
_PYTHON = (
    "import ast, glob, json, re\n"
    'for f in glob.glob(ast.__file__[:-6] + "*.py")[:120]:\n'
    '    s = open(f, errors="replace").read()\n'
    '    ast.dump(ast.parse(s)), json.dumps(re.findall(r"\\w+", s))'
)


@contextmanager
def busy_cpus() -> Iterator[None]:
    """Every CPU busy inside the block."""
    command = [sys.executable, "-S", "-c", _BUSY]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def mixed_load() -> Iterator[None]:
    """Programs of many kinds, started again and again: stacks, names and maps of all sorts."""
    with tempfile.TemporaryDirectory(prefix="kvmperf-load-") as folder:
        source = Path(folder, "a.cc")
        source.write_text(_SOURCE)
        commands = {
            "g++": f"g++ -O2 -c {source} -o {folder}/a.o",
            sys.executable: f"{sys.executable} -S -c '{_PYTHON}'",
            "perl": "perl -e 'my %h; $h{$_ * 7919 % 10007} .= 1 for 1 .. 700000'",
            "find": "find /usr/include /usr/share/doc -type f | head -4000 | xargs grep -l struct",
            "xz": "tar cf - /usr/share/doc 2>/dev/null | head -c 30000000 | xz -1",
            "openssl": "openssl speed -seconds 1 sha256",
            "ls": "for i in $(seq 100); do ls /usr/bin; done",
        }
        known = [command for name, command in commands.items() if shutil.which(name)]
        loops = [f"while :; do {one}; done" for one in ("; ".join(known), known[0])]
        processes = [
            subprocess.Popen(
                ["sh", "-c", loop],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for loop in loops
        ]
        try:
            yield
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
