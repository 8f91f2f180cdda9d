/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * To be preloaded: counts the calls of malloc(), calloc() and realloc() into the 8 bytes of the file
 * that $COUNT_ALLOCATIONS names.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The C library's own names, so that nothing has to be looked up by code that allocates. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *ptr, size_t size);

static uint64_t before_start;
static uint64_t *count = &before_start;

static __attribute__((constructor)) void count_into_file(void)
{
    const char *name = getenv("COUNT_ALLOCATIONS");
    int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    void *map = MAP_FAILED;

    if (fd >= 0) {
        map = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
    }
    if (map != MAP_FAILED) {
        count = map;
    }
}

void *malloc(size_t size)
{
    __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    return __libc_calloc(n, size);
}

void *realloc(void *ptr, size_t size)
{
    __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    return __libc_realloc(ptr, size);
}
