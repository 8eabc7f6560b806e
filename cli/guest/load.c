/*
 * The guest's load: what a virtual machine with work to do looks like from outside.
 *
 *   ttyS1  "HB <n>\n" every 10 ms, n counting from 0, and nothing else
 *   ttyS0  "READY\n" once, "PASS <n>\n" when the whole working set was checked and rewritten (at most
 *          five a second), "BAD page <i>\n" when a page is not what was written to it
 *
 * The kernel's command line sets it up:
 *   sealift.dirty=MIB   memory rewritten per second, 0 for none
 *   sealift.set=MIB     working set: how much memory that goes over
 *   sealift.secret=T    SEALIFT-HEAP-T, SEALIFT-FILE-T, SEALIFT-PIPE-T and SEALIFT-TTY-T are put into a
 *                       heap, the page cache, a pipe and a terminal's input queue; only the first is in
 *                       user memory
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE_WORDS 512
#define HEADER 3    /* words: page number, generation, weighted sum of the words after them */
#define REWRITTEN 8 /* words that a visit changes: enough to dirty the page, cheap under emulation */
#define BEAT_NS 10000000L

static void die(const char *what)
{
	dprintf(1, "FAIL %s\n", what);
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void sleep_until(int64_t ns)
{
	struct timespec t = { ns / 1000000000LL, ns % 1000000000LL };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
}

/* The value of `name=` on the kernel's command line, up to the next blank. */
static void parameter(const char *name, char *value, size_t size)
{
	char line[2048], *at;
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t n = read(fd, line, sizeof line - 1);
	close(fd);
	line[n < 0 ? 0 : n] = 0;
	value[0] = 0;
	if ((at = strstr(line, name)))
		snprintf(value, size, "%.*s", (int)strcspn(at + strlen(name), " \n"), at + strlen(name));
}

static int open_raw(const char *path)
{
	struct termios t;
	int fd = open(path, O_RDWR | O_NOCTTY);
	if (fd < 0 || tcgetattr(fd, &t))
		die(path);
	cfmakeraw(&t);
	cfsetspeed(&t, B115200);
	tcsetattr(fd, TCSANOW, &t);
	return fd;
}

static void beat(void)
{
	/* The beat must not wait for the writer: it tells how long the machine stood still. */
	struct sched_param priority = { 1 };
	int fd = open_raw("/dev/ttyS1");
	int64_t next = now_ns();
	char line[32];
	syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &priority);
	for (unsigned long n = 0;; n++) {
		int64_t now = now_ns();
		write(fd, line, sprintf(line, "HB %lu\n", n));
		/* After a stop the beat goes on from here; it does not make up for what was missed. */
		next = next + BEAT_NS > now ? next + BEAT_NS : now + BEAT_NS;
		sleep_until(next);
	}
}

/* Holds the secrets. Buffers they passed through are wiped: no copy is left in user memory but the heap's. */
static void hold_secrets(const char *token, int ready)
{
	char *secret = malloc(256), *heap = malloc(256);
	int file = open("/secret", O_RDWR | O_CREAT, 0600);
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY), unlock = 0, slave, length, ends[2];
	char name[32];
	if (pipe(ends) || file < 0 || master < 0 || ioctl(master, TIOCSPTLCK, &unlock) || ioctl(master, TIOCGPTN, &slave))
		die("secrets");
	snprintf(name, sizeof name, "/dev/pts/%d", slave);
	slave = open_raw(name); /* raw: the terminal does not echo */
	length = sprintf(secret, "SEALIFT-FILE-%s\n", token);
	if (write(file, secret, length) != length || pread(file, secret, length, 0) != length)
		die("file");
	length = sprintf(secret, "SEALIFT-PIPE-%s\n", token);
	if (write(ends[1], secret, length) != length)
		die("pipe");
	length = sprintf(secret, "SEALIFT-TTY-%s\n", token);
	if (write(master, secret, length) != length)
		die("tty");
	explicit_bzero(secret, 256);
	sprintf(heap, "SEALIFT-HEAP-%s\n", token);
	write(ready, "", 1);
	for (;;)
		pause();
}

static uint64_t weight(int word)
{
	return 2 * word + 1; /* odd, and its own for each word: two exchanged words show */
}

static uint64_t sum(const uint64_t *page)
{
	uint64_t s = 0;
	for (int w = HEADER; w < PAGE_WORDS; w++)
		s += page[w] * weight(w);
	return s;
}

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	return random_state ^= random_state << 17;
}

static void fill(uint64_t *page, uint64_t index)
{
	uint64_t word = next_random();
	for (int w = HEADER; w < PAGE_WORDS; w++)
		page[w] = word += 0x9e3779b97f4a7c15; /* looks random, costs one addition */
	page[0] = index;
	page[1] = 0;
	page[2] = sum(page);
}

/* Checks that a page is the one, and of the generation, that was written here last; then writes the next. */
static void visit(uint64_t *page, uint64_t index, uint64_t generation)
{
	if (page[0] != index || page[1] != generation || page[2] != sum(page)) {
		dprintf(1, "BAD page %lu\n", (unsigned long)index);
		fill(page, index);
	}
	for (int i = 0, w = HEADER + next_random() % (PAGE_WORDS - HEADER - REWRITTEN); i < REWRITTEN; i++, w++) {
		uint64_t fresh = next_random();
		page[2] += (fresh - page[w]) * weight(w);
		page[w] = fresh;
	}
	page[1] = generation + 1;
}

static void work(uint64_t *set, uint64_t pages, uint64_t pages_per_second)
{
	uint64_t index = 0, generation = 0;
	int64_t reported = 0, before = now_ns(), owed = 0;
	for (;;) {
		int64_t now = now_ns(), passed = now - before;
		before = now;
		/* What a stop of the machine cost is not caught up with. */
		owed += (passed < 50000000 ? passed : 50000000) * (int64_t)pages_per_second;
		for (; owed >= 1000000000; owed -= 1000000000) {
			visit(set + index * PAGE_WORDS, index, generation);
			if (++index < pages)
				continue;
			index = 0;
			generation++;
			if (now - reported > 200000000) {
				dprintf(1, "PASS %lu\n", (unsigned long)generation);
				reported = now;
			}
		}
		sleep_until(now + 5000000);
	}
}

int main(void)
{
	char token[128], value[32], byte;
	uint64_t dirty, pages, *set;
	int ready[2];

	parameter("sealift.secret=", token, sizeof token);
	parameter("sealift.dirty=", value, sizeof value);
	dirty = strtoul(value, 0, 10) * 256;
	parameter("sealift.set=", value, sizeof value);
	pages = strtoul(value, 0, 10) * 256;

	if (!fork())
		beat();
	if (pipe(ready))
		die("pipe");
	if (!fork())
		hold_secrets(token, ready[1]);
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		die("ready");
	set = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages && set == MAP_FAILED)
		die("set");
	for (uint64_t i = 0; i < pages; i++)
		fill(set + i * PAGE_WORDS, i);
	dprintf(1, "READY\n");
	if (pages && dirty)
		work(set, pages, dirty);
	for (;;)
		pause();
}
