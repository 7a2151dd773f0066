/*
 * The micro guest: N CPUs that run a small file-system-like workload, named as the functions of
 * the dbench profiles that started perf kvm (linux-kernel, "KVM PMU virtualization", 2010-03-02).
 *
 * Each CPU searches a bitmap and copies buffers of its own; in between all of them take one
 * ticket lock for a short moment. That is cheap while every CPU runs. Where a hypervisor takes a
 * vCPU away that holds the lock, or is next in line, all others spin.
 *
 * Built twice by build.py: as a guest without any kernel below it (entry: _start, its CPU number
 * in rdi, a stack in rsp), and with -DHOST as a Linux process that runs one thread a CPU.
 * No libc, no relocations, no writable code; shared state is in `control`, at a fixed address.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

#define MAX_CPUS 64
#define PROBE 0xffff /* as a CPU number: time a loop and end */
#define PROBE_TURNS 20000
#define END_PORT 0xf4
#define BITMAP_WORDS 128
#define COPY_BYTES 4096
#define WINDOW 12
#define SEARCHES 3
#define REVOKED 256 /* searched under the lock: some 5 % of the time */

#define SHOWN __attribute__((noinline, noclone, noipa))

enum phase { DBENCH, LOCK, SEARCH, COPY };

/* Read and written from outside: vmm.py knows this layout. */
struct control {
	volatile u32 phase;
	volatile u32 stop;
	u8 pad[56];
	volatile u64 cycles[MAX_CPUS][8]; /* one cache line a CPU */
};
/* The section flags in the name keep gcc from storing 4 KiB of zeros in the file. */
struct control control __attribute__((section(".control,\"aw\",@nobits#"), aligned(4096)));

struct lock {
	volatile u32 next, owner;
} __attribute__((aligned(64)));

static struct lock journal_lock;

static struct journal {
	u64 transaction, metadata, revoked[REVOKED];
} journal __attribute__((aligned(64)));

static struct cpu {
	u64 bitmap[BITMAP_WORDS], committed[BITMAP_WORDS];
	u8 from[COPY_BYTES], to[COPY_BYTES];
	u64 lru[8], goal, seed, undo;
} cpus[MAX_CPUS] __attribute__((aligned(64)));

SHOWN void __ticket_spin_lock(struct lock *lock)
{
	u32 ticket = __atomic_fetch_add(&lock->next, 1, __ATOMIC_ACQUIRE);

	while (__atomic_load_n(&lock->owner, __ATOMIC_ACQUIRE) != ticket)
		__builtin_ia32_pause();
}

SHOWN void __ticket_spin_unlock(struct lock *lock)
{
	__atomic_store_n(&lock->owner, lock->owner + 1, __ATOMIC_RELEASE);
}

/* Free in the bitmap, and not in use by the transaction that is being committed. */
SHOWN int ext3_test_allocatable(struct cpu *cpu, u64 word)
{
	u64 used = 0;

	for (u64 i = 0; i < WINDOW; i++) {
		u64 at = (word + i) % BITMAP_WORDS;

		used += __builtin_ctzl(~cpu->bitmap[at] | 1) + (cpu->committed[at] & 1);
	}
	return used == 0;
}

SHOWN u64 bitmap_search_next_usable_block(struct cpu *cpu, u64 start)
{
	for (u64 i = 0; i < BITMAP_WORDS; i++) {
		u64 word = (start + i) % BITMAP_WORDS;
		u64 free = ~cpu->bitmap[word];

		if ((free & (free >> 1) & (free >> 2)) && !(i % 5) &&
		    ext3_test_allocatable(cpu, word))
			return word;
	}
	return start;
}

SHOWN u64 ext3_try_to_allocate(struct cpu *cpu)
{
	u64 word = bitmap_search_next_usable_block(cpu, cpu->goal);

	for (u64 i = 0; i < 32; i++) /* back to the first free block of the run */
		if (cpu->committed[(word - i) % BITMAP_WORDS] & 1)
			cpu->goal = (cpu->goal + 1) % BITMAP_WORDS;
	return word;
}

SHOWN void ext3_free_blocks_sb(struct cpu *cpu, u64 word)
{
	for (u64 i = 0; i < BITMAP_WORDS; i += 2) {
		u64 at = (word + i) % BITMAP_WORDS;

		cpu->seed = cpu->seed * 6364136223846793005ul + 1442695040888963407ul;
		cpu->bitmap[at] = cpu->seed & ~0x7ul << (cpu->seed >> 59);
	}
}

SHOWN u64 __find_get_block(struct cpu *cpu, u64 block)
{
	u64 found = 0;

	for (u64 turn = 0; turn < 5; turn++)
		for (u64 i = 0; i < 8; i++)
			found += cpu->lru[i] == block + turn;
	cpu->lru[block % 8] = block;
	return found;
}

SHOWN void journal_get_undo_access(struct cpu *cpu)
{
	for (u64 i = 0; i < BITMAP_WORDS; i++) {
		cpu->undo += cpu->bitmap[i] >> 1;
		cpu->committed[i] = cpu->bitmap[i] | 1;
	}
}

SHOWN u64 find_revoke_record(u64 block)
{
	u64 found = 0;

	for (u64 i = 0; i < REVOKED; i++)
		found += journal.revoked[i] == block;
	return found;
}

SHOWN void do_get_write_access(struct cpu *cpu, u64 block)
{
	for (u64 i = 0; i < 64; i++)
		cpu->undo ^= (cpu->bitmap[i] << 1) + block;
	__ticket_spin_lock(&journal_lock);
	journal.transaction += !find_revoke_record(block);
	__ticket_spin_unlock(&journal_lock);
}

SHOWN void journal_dirty_metadata(struct cpu *cpu, u64 block)
{
	for (u64 i = 0; i < 56; i++)
		cpu->undo += cpu->committed[i] ^ block;
	__ticket_spin_lock(&journal_lock);
	journal.metadata++;
	journal.revoked[block % REVOKED] = block;
	__ticket_spin_unlock(&journal_lock);
}

SHOWN void copy_user_generic_string(void *to, const void *from, u64 bytes)
{
	u64 words = bytes / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

SHOWN u64 ext3_new_blocks(struct cpu *cpu)
{
	u64 word = 0;

	for (u64 i = 0; i < BITMAP_WORDS; i += 2) /* the group with most room */
		word += __builtin_ctzl(cpu->bitmap[i] | 1ul << 63);
	for (u64 i = 0; i < SEARCHES; i++)
		word = ext3_try_to_allocate(cpu);
	return word;
}

SHOWN void dbench_write(struct cpu *cpu)
{
	u64 block;

	journal_get_undo_access(cpu);
	block = ext3_new_blocks(cpu);
	__find_get_block(cpu, block);
	do_get_write_access(cpu, block);
	copy_user_generic_string(cpu->to, cpu->from, COPY_BYTES);
	journal_dirty_metadata(cpu, block);
	ext3_free_blocks_sb(cpu, block);
}

/* All of the search under the lock: with two CPUs one of them always waits. */
SHOWN void dbench_lock(struct cpu *cpu)
{
	__ticket_spin_lock(&journal_lock);
	journal.metadata += ext3_try_to_allocate(cpu);
	__ticket_spin_unlock(&journal_lock);
}

SHOWN void cpu_main(u64 index)
{
	struct cpu *cpu = &cpus[index % MAX_CPUS];

	cpu->seed = index * 2654435761ul + 12345;
	ext3_free_blocks_sb(cpu, 0);
	ext3_free_blocks_sb(cpu, 1);
	journal_get_undo_access(cpu);
	while (!control.stop) {
		switch (control.phase) {
		case LOCK:
			dbench_lock(cpu);
			break;
		case SEARCH:
			ext3_new_blocks(cpu);
			break;
		case COPY:
			copy_user_generic_string(cpu->to, cpu->from, COPY_BYTES);
			break;
		default:
			dbench_write(cpu);
		}
		control.cycles[index % MAX_CPUS][0]++;
	}
}

#ifndef HOST

void _start(u64 index)
{
	if (index == PROBE)
		for (volatile u32 turn = 0; turn < PROBE_TURNS; turn++)
			;
	else
		cpu_main(index);
	for (;;)
		__asm__ volatile("outb %%al, %0" : : "i"((u8)END_PORT));
}

#else

enum { READ = 0, WRITE = 1, POLL = 7, CLONE = 56, EXIT = 60, GETPPID = 110, EXIT_GROUP = 231 };

static long call(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}

/* A thread that shares all (CLONE_VM FS FILES SIGHAND THREAD SYSVSEM) and runs cpu_main(index). */
long start_thread(void *stack, u64 index);
__asm__(".globl start_thread\n"
	".type start_thread, @function\n"
	"start_thread:\n"
	"	mov %rsi, %r9\n"
	"	mov %rdi, %rsi\n"
	"	mov $0x50f00, %edi\n"
	"	xor %edx, %edx\n"
	"	xor %r10d, %r10d\n"
	"	xor %r8d, %r8d\n"
	"	mov $56, %eax\n"
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jnz 1f\n"
	"	xor %ebp, %ebp\n"
	"	mov %r9, %rdi\n"
	"	call cpu_main\n"
	"	mov $60, %eax\n"
	"	syscall\n"
	"1:	ret\n"
	".size start_thread, . - start_thread\n");

static u8 stacks[MAX_CPUS][4096] __attribute__((aligned(4096)));

static void say_cycles(u64 threads)
{
	char text[24];
	u64 total = 0, at = sizeof(text);

	for (u64 i = 0; i < threads; i++)
		total += control.cycles[i][0];
	text[--at] = '\n';
	do
		text[--at] = '0' + total % 10;
	while (total /= 10);
	call(WRITE, 1, (long)text + at, sizeof(text) - at);
}

/* micro-host THREADS; a line on stdin names a phase, or asks for "?cycles"; the end ends it. */
void host_main(u64 *arguments)
{
	u64 threads = 0, running = 0;
	long parent = call(GETPPID, 0, 0, 0);
	u8 byte, first = 1;
	struct { int fd; short events, revents; } input = { 0, 1, 0 };

	if (arguments[0] > 1)
		for (char *digit = (char *)arguments[2]; *digit; digit++)
			threads = threads * 10 + *digit - '0';
	if (threads < 1 || threads > MAX_CPUS)
		call(EXIT_GROUP, 2, 0, 0);
	for (;;) {
		if (call(POLL, (long)&input, 1, 500) == 0) {
			if (call(GETPPID, 0, 0, 0) != parent)
				break;
			continue;
		}
		if (call(READ, 0, (long)&byte, 1) != 1)
			break;
		if (byte == '\n') {
			first = 1;
			continue;
		}
		if (first && byte == '?')
			say_cycles(threads);
		else if (first)
			control.phase = byte == 'l' ? LOCK : byte == 's' ? SEARCH
				      : byte == 'c' ? COPY : DBENCH;
		first = 0;
		if (!running) {
			for (; running < threads; running++)
				start_thread(stacks[running + 1], running);
			call(WRITE, 1, (long)"ready\n", 6);
		}
	}
	call(EXIT_GROUP, 0, 0, 0);
}

__asm__(".globl _start\n"
	".type _start, @function\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call host_main\n"
	".size _start, . - _start\n");

#endif
