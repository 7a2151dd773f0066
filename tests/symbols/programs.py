"""Programs whose names come from everywhere: C++, Rust, perf maps, jitdumps, BPF."""

from __future__ import annotations

# a JIT compiler in small: it copies code into anonymous memory, says so in a jit-PID.dump, and
# uses the place of the first function again for another
JITDUMP = r"""
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
/* loop: dec %rdi; jnz loop; ret */
static const unsigned char code[] = {0x48, 0xff, 0xcf, 0x75, 0xfb, 0xc3};
static FILE *dump;
static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}
static void word(uint32_t w) { fwrite(&w, 4, 1, dump); }
static void quad(uint64_t q) { fwrite(&q, 8, 1, dump); }
static void head(uint32_t kind, uint32_t size) { word(kind); word(size); quad(now()); }
static void load(const char *name, char *at, uint64_t index)
{
    memcpy(at, code, sizeof(code));
    head(0, 16 + 8 + 32 + strlen(name) + 1 + sizeof(code));
    word(getpid()); word(syscall(SYS_gettid));
    quad((uint64_t)at); quad((uint64_t)at); quad(sizeof(code)); quad(index);
    fwrite(name, strlen(name) + 1, 1, dump);
    fwrite(code, sizeof(code), 1, dump);
    fflush(dump);
}
static void move(char *from, char *to, uint64_t index)
{
    memcpy(to, code, sizeof(code));
    head(1, 16 + 8 + 40);
    word(getpid()); word(syscall(SYS_gettid));
    quad((uint64_t)to); quad((uint64_t)from); quad((uint64_t)to); quad(sizeof(code)); quad(index);
    fflush(dump);
}
static void run(char *at, long n) { ((void (*)(long))at)(n); }
int main(int argc, char **argv)
{
    char name[4096];
    char *page = mmap(0, 16384, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    snprintf(name, sizeof(name), "%s/jit-%d.dump", argv[1], getpid());
    int fd = open(name, O_CREAT | O_TRUNC | O_RDWR, 0644);
    mmap(0, sysconf(_SC_PAGESIZE), PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    dump = fdopen(fd, "wb");
    word(0x4A695444); word(1); word(40); word(62); word(0); word(getpid()); quad(now()); quad(0);
    fflush(dump);
    load("first", page, 1);
    run(page, N);
    load("other", page + 4096, 2);
    run(page + 4096, N);
    load("second at the place of the first", page, 3);
    run(page, N);
    move(page + 4096, page + 8192, 2);
    run(page + 8192, N);
    head(3, 16);
    fclose(dump);
    return 0;
}
"""
RUST = """
use std::collections::BTreeMap;
trait Shape { fn area(&self, n: u64) -> u64; }
struct Square<T>(T);
impl<T: Into<u64> + Copy> Shape for Square<T> {
    #[inline(never)]
    fn area(&self, n: u64) -> u64 {
        let mut s = std::hint::black_box(self.0.into());
        for i in 0..n { s = std::hint::black_box(s.wrapping_mul(31) ^ i); }
        s
    }
}
mod inner {
    #[inline(never)]
    pub fn generic<F: Fn(u64) -> u64>(n: u64, f: F) -> u64 {
        (0..n).fold(0, |a, i| std::hint::black_box(a ^ f(i)))
    }
}
fn main() {
    let shapes: Vec<Box<dyn Shape>> = vec![Box::new(Square(3u32)), Box::new(Square(5u8))];
    let mut map = BTreeMap::new();
    let mut total = 0;
    for round in 0..400u64 {
        for shape in &shapes { total ^= shape.area(20000); }
        total ^= inner::generic(20000, |i| std::hint::black_box(i * round));
        for i in 0..200 { *map.entry(format!("key {}", i % 50)).or_insert(0u64) += total & 7; }
    }
    println!("{} {}", total, map.len());
}
"""
# a loop of its own, run by the kernel; gone when the process ends
BPF = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def insn(op, dst=0, off=0, imm=0):
    return struct.pack("<BBhi", op, dst, off, imm)
def bpf(command, attr):
    raw = ctypes.create_string_buffer(attr.ljust(128, bytes(1)))
    got = libc.syscall(321, command, raw, 128)
    if got < 0:
        open(sys.argv[1], "w").write(os.strerror(ctypes.get_errno()))
        sys.exit(1)
    return got
code = insn(0xb7) + insn(0xb7, 1, 0, 1000) + insn(0x07, 0, 0, 3) + insn(0x07, 1, 0, -1)
code = ctypes.create_string_buffer(code + insn(0x55, 1, -3) + insn(0x95))
gpl = ctypes.create_string_buffer(b"GPL")
where = ctypes.addressof(code), ctypes.addressof(gpl)
program = bpf(5, struct.pack("<IIQQIIQII16s", 1, 6, *where, 0, 0, 0, 0, 0, b"spinner"))
data = ctypes.create_string_buffer(64)
for _ in range(ROUNDS):
    bpf(10, struct.pack("<IIIIQQI", program, 0, 64, 0, ctypes.addressof(data), 0, 200000))
"""
