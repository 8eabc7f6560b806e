/*
 * A guest that tells which of its memory its processes have: what a look at it from outside is compared with.
 *
 * Some processes map memory in every way there is, and are stopped. Then this one says on the console, and rests:
 *   SPACES n           processes that have memory of their own
 *   CODE first-last    physical addresses of the kernel's code (/proc/iomem)
 *   P count flags      the next `count` pages, from page 0 on: see PAGEMAP to RESERVED
 *   FROZEN
 *
 * See proc_kpageflags(5), proc_pid_pagemap(5) and Documentation/admin-guide/mm/pagemap.rst.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define MAX_PAGES (1UL << 20) /* 4 GiB of addresses */
#define MIB (1UL << 20)

/* Flags of a page in the output. */
#define PAGEMAP 1  /* some process's pagemap has it */
#define MMAP 2     /* kpageflags: mapped by a process */
#define SLAB 4
#define BUDDY 8    /* free */
#define PGTABLE 16
#define NOPAGE 32  /* the kernel knows no page there */
#define LRU 64     /* page cache and processes' memory */
#define RESERVED 128

static unsigned char pages[MAX_PAGES];
static uint64_t entries[8192];

static void die(const char *what)
{
	printf("FAIL %s\n", what);
	fflush(stdout);
	for (;;)
		pause();
}

static char *map(size_t size, int flags, int fd)
{
	char *at = mmap(0, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (at == MAP_FAILED)
		die("mmap");
	return at;
}

static void stop_self(void)
{
	for (;;)
		raise(SIGSTOP);
}

/* Small pages, pages without rights, transparent huge pages, pages shared with a child, and with nobody any more. */
static void use_anonymous(void)
{
	char *small = map(4 * MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	char *huge = map(8 * MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	madvise(small, 4 * MIB, MADV_NOHUGEPAGE);
	madvise(huge, 8 * MIB, MADV_HUGEPAGE);
	memset(small, 0x5a, 4 * MIB);
	memset(huge, 0xa5, 8 * MIB);
	if (mprotect(small + MIB, MIB, PROT_NONE) || mprotect(huge + 4 * MIB, 2 * MIB, PROT_NONE))
		die("mprotect");
	munmap(small + 3 * MIB, MIB);
	if (!fork()) {
		memset(small, 1, MIB / 2);
		stop_self();
	}
	waitpid(-1, 0, WUNTRACED);
	stop_self();
}

/* A file of the page cache: half of it is mapped, half is not. */
static void use_file(void)
{
	static char noise[64 * 1024];
	int fd = open("/file", O_RDWR | O_CREAT, 0600);
	char *at;
	memset(noise, 0x77, sizeof noise);
	for (int i = 0; i < 64; i++)
		if (write(fd, noise, sizeof noise) != sizeof noise)
			die("file");
	at = map(2 * MIB, MAP_SHARED, fd);
	for (size_t i = 0; i < 2 * MIB; i += PAGE)
		at[i]++;
	at = map(MIB, MAP_PRIVATE, fd);
	for (size_t i = 0; i < MIB; i += 2 * PAGE)
		at[i]++;
	stop_self();
}

static void use_gibibyte(void)
{
	char *at = map(1UL << 30, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 30 << 26 /* MAP_HUGE_1GB */, -1);
	at[12345] = 1;
	stop_self();
}

static void start(void (*use)(void))
{
	int pid = fork(), status;
	if (!pid)
		use();
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
		die("start");
}

static void start_program(void)
{
	int pid = fork();
	if (!pid) {
		execl("/bin/busybox", "busybox", "sleep", "1000000", (char *)0);
		die("exec");
	}
	sleep(1);
	kill(pid, SIGSTOP);
	waitpid(pid, 0, WUNTRACED);
}

/* Notes the pages of a range of one process's addresses. */
static void note_range(int fd, uint64_t first, uint64_t count)
{
	while (count > 0) {
		uint64_t part = count < 8192 ? count : 8192;
		ssize_t got = pread(fd, entries, part * 8, first * 8);
		if (got <= 0)
			return;
		for (int i = 0; i < got / 8; i++) {
			uint64_t page = entries[i] & ((1UL << 55) - 1);
			if (entries[i] >> 63 && page < MAX_PAGES)
				pages[page] |= PAGEMAP;
		}
		first += got / 8;
		count -= got / 8;
	}
}

static int note_process(const char *pid)
{
	char path[64], line[512];
	unsigned long from, to;
	int ranges = 0, fd;
	FILE *maps;
	snprintf(path, sizeof path, "/proc/%s/pagemap", pid);
	fd = open(path, O_RDONLY);
	snprintf(path, sizeof path, "/proc/%s/maps", pid);
	maps = fopen(path, "r");
	while (maps && fgets(line, sizeof line, maps))
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 && from < 1UL << 57) {
			note_range(fd, from / PAGE, (to - from) / PAGE);
			ranges++;
		}
	/* `maps` stays open: memory that this process gave back would be told as its own. */
	close(fd);
	return ranges > 0;
}

static void note_flags(void)
{
	static const struct { int bit, flag; } known[] = {
		{ 11, MMAP }, { 7, SLAB }, { 10, BUDDY }, { 26, PGTABLE }, { 20, NOPAGE }, { 5, LRU }, { 32, RESERVED },
	};
	int fd = open("/proc/kpageflags", O_RDONLY);
	uint64_t page = 0;
	ssize_t got;
	while (page < MAX_PAGES && (got = read(fd, entries, sizeof entries)) > 0)
		for (int i = 0; i < got / 8 && page < MAX_PAGES; i++, page++)
			for (int k = 0; k < sizeof known / sizeof *known; k++)
				if (entries[i] >> known[k].bit & 1)
					pages[page] |= known[k].flag;
	if (page < 1024)
		die("kpageflags");
	for (; page < MAX_PAGES; page++)
		pages[page] |= NOPAGE;
	close(fd);
}

static void tell_code(void)
{
	char line[256];
	FILE *iomem = fopen("/proc/iomem", "r");
	while (iomem && fgets(line, sizeof line, iomem))
		if (strstr(line, "Kernel code"))
			printf("CODE %.*s\n", (int)strcspn(line + strspn(line, " "), " "), line + strspn(line, " "));
}

int main(void)
{
	char line[1024] = "";
	struct dirent *entry;
	int spaces = 0, fd;
	DIR *proc;

	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, 0);
	fd = open("/proc/cmdline", O_RDONLY);
	read(fd, line, sizeof line - 1);
	close(fd);
	mlockall(MCL_CURRENT | MCL_FUTURE);

	start(use_anonymous);
	start(use_file);
	start_program();
	if (strstr(line, "truth.gibibyte"))
		start(use_gibibyte);

	/* What is written to from now on belongs to this process alone: no page of it changes any more. */
	memset(pages, 0, sizeof pages);
	memset(entries, 0, sizeof entries);
	printf("BEGIN\n");
	proc = opendir("/proc");
	while ((entry = readdir(proc)))
		if (entry->d_name[0] > '0' && entry->d_name[0] <= '9')
			spaces += note_process(entry->d_name);
	tell_code();
	note_flags();
	printf("SPACES %d\n", spaces);
	for (unsigned long from = 0, to; from < MAX_PAGES; from = to) {
		for (to = from; to < MAX_PAGES && pages[to] == pages[from]; to++)
			;
		printf("P %lu %d\n", to - from, pages[from]);
	}
	printf("FROZEN\n");
	fflush(stdout);
	for (;;)
		pause();
}
