/* Stacks that only call frame information can walk: no frame pointers, inlining, recursion,
   frames of variable size, calls from the C library, and a signal handler. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

volatile unsigned long sink;

static inline __attribute__((always_inline)) unsigned long inlined(unsigned long n)
{
	for (int i = 0; i < 200; i++)
		n = n * 6364136223846793005ul + 1442695040888963407ul;
	return n;
}

__attribute__((noinline)) unsigned long leaf(unsigned long n)
{
	unsigned long sum = 0;

	for (int i = 0; i < 50; i++)
		sum += inlined(n + i);
	sink = sum;
	return sum;
}

__attribute__((noinline)) unsigned long middle(unsigned long a, unsigned long b)
{
	char block[333];

	memset(block, (int)a, sizeof(block));
	return leaf(a + block[b % 333]) + leaf(b) + block[sink % 333];
}

__attribute__((noinline)) unsigned long recurse(unsigned int n, unsigned long x)
{
	if (!n)
		return middle(x, x + 1);
	return recurse(n - 1, x * 3 + 1) ^ leaf(x + n);
}

__attribute__((noinline)) unsigned long variable(unsigned int n)
{
	unsigned long *block = __builtin_alloca(n * 8 + 16);

	for (unsigned int i = 0; i < n; i++)
		block[i] = i;
	return recurse(n % 7, block[n / 2]) + block[n - 1];
}

static int compare(const void *a, const void *b)
{
	unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;

	leaf(x);
	return x < y ? -1 : x > y;
}

__attribute__((noinline)) void sorting(void)
{
	unsigned long values[100];

	for (int i = 0; i < 100; i++)
		values[i] = rand();
	qsort(values, 100, sizeof(*values), compare);
	sink += values[3];
}

static void handler(int number)
{
	leaf(number);
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 200;

	signal(SIGUSR1, handler);
	for (int i = 0; i < rounds; i++) {
		recurse(i % 40, i);
		recurse(i % 300, i); /* deeper than perf goes */
		variable(5 + i % 100);
		if (i % 50 == 0)
			sorting();
		for (int j = 0; j < 20; j++)
			raise(SIGUSR1);
	}
	return 0;
}
