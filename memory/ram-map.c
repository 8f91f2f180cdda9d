/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mappings that hold guest memory. */
#include "memory/ram-map.h"

#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "util/units.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* More threads than this fault no faster, whatever the user asks for. */
#define PREALLOC_THREADS_MAX 64

size_t ram_map_page_size(int fd)
{
    struct statfs fs;

    if (fd >= 0) {
        int ret;

        do {
            ret = fstatfs(fd, &fs);
        } while (ret < 0 && errno == EINTR);
        if (ret < 0) {
            return 0;
        }
        if (fs.f_type == HUGETLBFS_MAGIC) {
            return (size_t)fs.f_bsize;
        }
    }
    return (size_t)sysconf(_SC_PAGESIZE);
}

/*
 * Reserves address space with room to align in, maps over the aligned part of it and gives the rest
 * back, except one page behind it. That page stays inaccessible: a run over the end of guest memory
 * is a fault, not an access to other memory.
 */
void *ram_map(const RAMMapOptions *options)
{
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    int prot = PROT_READ | (options->readonly ? 0 : PROT_WRITE);
    int flags = MAP_FIXED | (options->shared ? MAP_SHARED : MAP_PRIVATE);
    uint64_t total, head, tail;
    uint8_t *area, *host;
    int saved;

    if (__builtin_add_overflow(options->size, options->align, &total) ||
        __builtin_add_overflow(total, guard, &total) || total > SIZE_MAX / 2) {
        errno = ENOMEM;
        return NULL;
    }
    area = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) {
        return NULL;
    }
    head = -(uintptr_t)area & (options->align - 1);
    host = area + head;
    flags |= options->fd < 0 ? MAP_ANONYMOUS : 0;
    flags |= options->noreserve ? MAP_NORESERVE : 0;
    if (mmap(host, options->size, prot, flags, options->fd,
             options->fd < 0 ? 0 : (off_t)options->fd_offset) == MAP_FAILED) {
        saved = errno;
        munmap(area, total);
        errno = saved;
        return NULL;
    }
    tail = total - head - options->size - guard;
    if (head) {
        munmap(area, head);
    }
    if (tail) {
        munmap(host + options->size + guard, tail);
    }
    return host;
}

void ram_unmap(void *host, uint64_t size)
{
    munmap(host, size + (size_t)sysconf(_SC_PAGESIZE));
}

/* --- prealloc --- */

/*
 * The kernel locks the map of the whole process over a call, and every thread that maps memory (for a
 * stack, a buffer) waits for it meanwhile.
 */
#define PREALLOC_STEP_BYTES (4 * MiB)

typedef struct Toucher {
    uint8_t *host;
    uint64_t size;
    size_t page_size;
    int ret;
} Toucher;

/*
 * Kernels before 5.14: a write that changes nothing. A missing huge page is a SIGBUS in this
 * thread.
 */
static __thread sigjmp_buf *touch_escape;
static struct sigaction old_sigbus;
static pthread_mutex_t prealloc_lock = PTHREAD_MUTEX_INITIALIZER; /* one handler at a time */

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    if (touch_escape) {
        siglongjmp(*touch_escape, 1);
    }
    /* A fault elsewhere: let it happen again without us. */
    sigaction(SIGBUS, &old_sigbus, NULL);
}

static int touch_by_hand(const Toucher *t)
{
    sigjmp_buf escape;
    int ret = 0;

    if (sigsetjmp(escape, 1)) {
        ret = -ENOMEM;
    } else {
        touch_escape = &escape;
        for (uint64_t at = 0; at < t->size; at += t->page_size) {
            __atomic_fetch_or(t->host + at, 0, __ATOMIC_RELAXED);
        }
    }
    touch_escape = NULL;
    return ret;
}

static int populate(const Toucher *t)
{
    while (madvise(t->host, t->size, MADV_POPULATE_WRITE) < 0) {
        if (errno == EINVAL) {
            return touch_by_hand(t);
        }
        if (errno != EINTR && errno != EAGAIN) {
            return errno == EFAULT || errno == EHWPOISON ? -ENOMEM : -errno;
        }
    }
    return 0;
}

static void *touch_thread(void *opaque)
{
    Toucher *t = opaque, piece = *t;
    uint64_t step = MAX(PREALLOC_STEP_BYTES, t->page_size);

    for (uint64_t at = 0; at < t->size && t->ret == 0; at += step) {
        piece.host = t->host + at;
        piece.size = MIN(step, t->size - at);
        t->ret = populate(&piece);
    }
    return NULL;
}

int ram_prealloc(void *host, uint64_t size, size_t page_size, unsigned threads)
{
    uint64_t pages = size / page_size, done = 0;
    unsigned n = MAX(1, MIN(MIN(threads, PREALLOC_THREADS_MAX), MIN(pages, UINT32_MAX)));
    g_autofree Toucher *touchers = g_new0(Toucher, n);
    g_autofree GThread **handles = g_new0(GThread *, n);
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
    int ret = 0;

    pthread_mutex_lock(&prealloc_lock);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &old_sigbus);
    for (unsigned i = 0; i < n; i++) {
        uint64_t share = (pages - done) / (n - i);

        touchers[i] =
            (Toucher){(uint8_t *)host + done * page_size, share * page_size, page_size, 0};
        done += share;
        if (i + 1 < n) {
            handles[i] = g_thread_new("prealloc", touch_thread, &touchers[i]);
        } else {
            touch_thread(&touchers[i]);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (handles[i]) {
            g_thread_join(handles[i]);
        }
        ret = ret ? ret : touchers[i].ret;
    }
    sigaction(SIGBUS, &old_sigbus, NULL);
    pthread_mutex_unlock(&prealloc_lock);
    return ret;
}
