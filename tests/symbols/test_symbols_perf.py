"""perf itself as the oracle: on its recordings we give each sample the same symbol and DSO."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from perfrecord import Recorded, build, record

pytestmark = [pytest.mark.perf, pytest.mark.root, pytest.mark.compiler]

LIBRARY = """
static long __attribute__((noinline)) inner(long n)
{ long s = 0; for (long i = 0; i < n; i++) s += i * i % 7; return s; }
long lib_work(long n) { return inner(n) + inner(n / 2); }
"""
# static functions, the PLT, the vdso, dlopen, a fork that goes on in both, an exec
PROGRAM = """
#include <ctype.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static long __attribute__((noinline)) spin(long n)
{ long s = 0; for (long i = 0; i < n; i++) s += i % 5; return s; }
long __attribute__((noinline)) plain(long n) { return spin(n) + spin(n / 3); }
int main(int argc, char **argv)
{
    volatile long r = plain(5000000);
    struct timespec ts;
    for (int i = 0; i < 700000; i++) {
        r += toupper(i % 90) + rand();
        clock_gettime(CLOCK_MONOTONIC, &ts);
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    long (*work)(long) = (long (*)(long))dlsym(library, "lib_work");
    r += work(10000000);
    if (fork() == 0) {
        r += plain(5000000) + work(5000000);
        execl(argv[2], argv[2], (char *)0);
        _exit(1);
    }
    wait(0);
    return 0;
}
"""
CPLUSPLUS = """
#include <map>
#include <string>
#include <vector>
namespace ns {
template <class T> struct S {
    T v;
    __attribute__((noinline)) T work(int n, const std::string &s)
    { T r = 0; for (int i = 0; i < n; i++) r += (T)(i * 3) ^ (T)s.size(); return r + v; }
    __attribute__((noinline)) T operator()(int n) const
    { T r = v; for (int i = 0; i < n; i++) r += i % 3; return r; }
};
namespace { __attribute__((noinline)) long local(std::vector<int> &v)
{ long s = 0; for (auto &x : v) s += x * 7 % 13; return s; } }
}
int main()
{
    ns::S<long> s{1};
    std::vector<int> v(1000, 3);
    std::map<std::string, int> m;
    volatile long r = 0;
    for (int i = 0; i < 20000; i++) {
        r += s.work(1000, "abc") + s(500) + ns::local(v);
        m[std::to_string(i % 500)] += i;
    }
}
"""
PYTHON = """
import json
def alpha(n):
    return sum(i * i for i in range(n))
def beta():
    return [json.dumps({"a": list(range(50))}) for _ in range(1000)]
for _ in range(3):
    alpha(200000), beta()
"""


def agrees(recorded: Recorded, least: int, *symbols: str) -> None:
    assert len(recorded.samples) >= least
    named = {sample[3] for sample in recorded.samples}
    assert set(symbols) <= named, "the recording does not show what the test is about"
    different = recorded.compare()
    share = different.total() / len(recorded.samples)
    assert share <= 0.005, different.most_common(10)


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("binaries")
    build(folder, "lib.so", LIBRARY, "-shared", "-fPIC")
    build(folder, "pie", PROGRAM, "-fno-builtin", "-ldl")
    build(folder, "nopie", PROGRAM, "-fno-builtin", "-no-pie", "-ldl")
    build(folder, "cplusplus", CPLUSPLUS, compiler="g++")
    return folder


@pytest.mark.parametrize("kind", ["pie", "nopie"])
def test_c_with_library_fork_and_exec(
    kind: str, binaries: Path, tmp_path: Path, perf: Callable[..., str]
) -> None:
    command = [binaries / kind, binaries / "lib.so", binaries / "cplusplus"]
    recorded = record(perf, tmp_path, command)
    agrees(recorded, 500, "spin", "inner", "ns::S<long>::work")
    # the child that did not exec yet runs its parent's code
    pids = {sample[1] for sample in recorded.samples if sample[3] in {"spin", "inner"}}
    assert len(pids) == 2


def test_cplusplus(binaries: Path, tmp_path: Path, perf: Callable[..., str]) -> None:
    recorded = record(perf, tmp_path, [binaries / "cplusplus"])
    agrees(
        recorded,
        200,
        "ns::S<long>::work",
        "ns::S<long>::operator()",
        "ns::(anonymous namespace)::local",
    )


def test_python_with_its_libraries(tmp_path: Path, perf: Callable[..., str]) -> None:
    (tmp_path / "work.py").write_text(PYTHON)
    options = ["-X", "perf"] if hasattr(sys, "activate_stack_trampoline") else []
    command: list[str | Path] = [sys.executable, *options, "-S", tmp_path / "work.py"]
    agrees(record(perf, tmp_path, command), 300)


def test_code_in_a_perf_map(tmp_path: Path, perf: Callable[..., str]) -> None:
    """A JIT compiler in small: copies code into anonymous memory and says what it is."""
    jit = build(
        tmp_path,
        "jit",
        """
        #include <stdio.h>
        #include <string.h>
        #include <sys/mman.h>
        #include <unistd.h>
        int main(void)
        {
            /* loop: dec %rdi; jnz loop; ret */
            static const unsigned char code[] = {0x48, 0xff, 0xcf, 0x75, 0xfb, 0xc3};
            char *page = mmap(0, 8192, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), name[64];
            for (int i = 0; i < 3; i++) memcpy(page + 1024 * i, code, sizeof(code));
            snprintf(name, sizeof(name), "/tmp/perf-%d.map", getpid());
            FILE *map = fopen(name, "w");
            for (int i = 0; i < 2; i++)
                fprintf(map, "%lx %x jit %d <'name'>\\n", (long)page + 1024 * i, 6, i);
            fclose(map);
            for (int i = 0; i < 3; i++) ((void (*)(long))(page + 1024 * i))(100000000);
            return 0;
        }
        """,
    )
    recorded = record(perf, tmp_path, [jit])
    agrees(recorded, 100, "jit 0 <'name'>", "jit 1 <'name'>", "[unknown]")
    assert not recorded.compare()


def test_processes_that_come_and_go(tmp_path: Path, perf: Callable[..., str]) -> None:
    script = "for i in $(seq 1 30); do /bin/true; ls / >/dev/null; (echo $i | cat >/dev/null); done"
    agrees(record(perf, tmp_path, ["sh", "-c", script]), 300)


def test_whole_machine(tmp_path: Path, perf: Callable[..., str], binaries: Path) -> None:
    """What ran before the recording began is known from synthesised records."""
    recorded = record(perf, tmp_path, [binaries / "cplusplus"], "-a")
    assert len({sample[1] for sample in recorded.samples}) > 1
    agrees(recorded, 200)
