"""Two recordings by perf of one program in two moods, and what perf script says of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from script_profile import FIELDS, Recorded, parse_script

# recursion (walk), mutual recursion (ping, pong), a function of one mood only, and the kernel
SOURCE = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#define KEEP __attribute__((noinline))
static volatile unsigned long sink;
#define WORK(n) for (int i = 0; i < (n) * 1000; i++) sink += i
#define PLAIN(name, n) KEEP void name(int mood) { WORK(n); sink += mood; }
PLAIN(one, 3 * mood) PLAIN(two, 8) PLAIN(three, 5 + mood) PLAIN(four, 15) PLAIN(five, 30 / mood)
PLAIN(only_first, 90) PLAIN(only_second, 90)
KEEP void walk(int depth) { WORK(10); if (depth) walk(depth - 1); sink++; }
KEEP void pong(int depth);
KEEP void ping(int depth) { WORK(6); if (depth) pong(depth - 1); sink++; }
KEEP void pong(int depth) { WORK(5); if (depth) ping(depth - 1); sink++; }
int main(int argc, char **argv)
{
	static char page[65536];
	int mood = atoi(argv[1]), fd = open("/dev/zero", O_RDONLY);
	for (int i = 0; i < 8000; i++) {
		walk(mood);
		ping(6);
		one(mood), two(mood), three(mood), four(mood), five(mood);
		if (mood == 1) only_first(mood); else only_second(mood);
		for (int k = 0; k < 10 * mood; k++) if (read(fd, page, sizeof page) < 0) return 1;
	}
	return 0;
}
"""


@pytest.fixture(scope="session")
def recorded(perf: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("moods")
    source, program = folder / "moods.c", folder / "moods"
    source.write_text(SOURCE)
    subprocess.run(
        [
            "cc",
            "-O1",
            "-fno-omit-frame-pointer",
            "-fno-optimize-sibling-calls",
            "-o",
            program,
            source,
        ],
        check=True,
    )
    paths = (folder / "a.data", folder / "b.data")
    for mood, path in enumerate(paths, 1):
        # -B -N: no build ids, hence no cache in ~/.debug that other perfs write to meanwhile
        options = ("-B", "-N", "-e", "cpu-clock", "-F", "2500", "-g", "--sample-cpu", "-o", path)
        perf("record", *options, "--", program, str(mood))
    texts = [perf("script", "-F", FIELDS, "-i", path) for path in paths]
    first, second = map(parse_script, texts)
    return Recorded(paths, (first, second))
