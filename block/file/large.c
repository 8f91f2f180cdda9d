/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filling holes of a file in memory with large pages.
 *
 * A file system in memory gets a page of 4 KiB for each 4 KiB that is written, under the file's
 * lock, and that costs more than copying the data. Where a whole large page is about to be written
 * into a hole, madvise(2) MADV_COLLAPSE (Linux 6.1) gets it as one; the source is then read straight
 * into it. It takes no more of the file system than writing would.
 *
 * All of it is an attempt: whatever the kernel refuses is written as usual. The call waits for
 * every processor to hand over the pages that it holds back, which takes long where one is kept
 * busy. So both ways are timed, and large pages are tried more and more rarely while they do not
 * pay.
 */
#include "block/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "util/timer.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define LARGE_PAGE_BYTES (2 << 20)
#define SMALL_PAGE_BYTES 4096
/* What copying as usual takes before it has been measured, ns for 1 MiB. */
#define FIRST_GUESS_NS (800 * SCALE_US)
/* Large pages: how many times as quick where nothing is wrong, and at least so that they pay. */
#define LARGE_IS_QUICKER               3
#define LARGE_PAYS(small_ns, large_ns) ((large_ns)*3 <= (small_ns)*2)
/* Large pages that are copied as usual after an attempt in vain; so many times more after the next. */
#define FIRST_SKIP  4
#define SKIP_GROWTH 4
#define MAX_SKIP    (1 << 16)

G_STATIC_ASSERT(BDRV_COPY_RANGE_MAP % LARGE_PAGE_BYTES == 0);

void file_large_init(FileLargePages *l)
{
    *l = (FileLargePages){
        .small_ns = FIRST_GUESS_NS,
        .large_ns = FIRST_GUESS_NS / LARGE_IS_QUICKER,
        .window = LARGE_PAGE_BYTES,
        .next_skip = FIRST_SKIP,
    };
    pthread_mutex_init(&l->lock, NULL);
}

void file_large_destroy(FileLargePages *l)
{
    pthread_mutex_destroy(&l->lock);
}

/* How many bytes may be tried at once now; 0: none. */
static int64_t next_window(FileLargePages *l)
{
    int64_t bytes = 0;

    pthread_mutex_lock(&l->lock);
    if (l->skip == 0) {
        bytes = l->window;
    } else {
        l->skip--;
    }
    pthread_mutex_unlock(&l->lock);
    return bytes;
}

static void average(int64_t *mean_ns, int64_t bytes, int64_t elapsed_ns)
{
    *mean_ns += ((elapsed_ns << 20) / bytes - *mean_ns) / 4;
}

void file_large_note_small(FileLargePages *l, int64_t bytes, int64_t elapsed_ns)
{
    pthread_mutex_lock(&l->lock);
    average(&l->small_ns, bytes, elapsed_ns);
    pthread_mutex_unlock(&l->lock);
}

/* bytes: how many were copied; 0: the kernel refused. */
static void note_large(FileLargePages *l, int64_t bytes, int64_t elapsed_ns)
{
    pthread_mutex_lock(&l->lock);
    if (bytes) {
        average(&l->large_ns, bytes, elapsed_ns);
    }
    if (bytes && LARGE_PAYS(l->small_ns, l->large_ns)) {
        l->next_skip = FIRST_SKIP;
        l->window = BDRV_COPY_RANGE_MAP;
    } else {
        l->large_ns = l->small_ns / LARGE_IS_QUICKER;
        l->skip = l->next_skip;
        l->next_skip = MIN(l->next_skip * SKIP_GROWTH, MAX_SKIP);
        l->window = LARGE_PAGE_BYTES;
    }
    pthread_mutex_unlock(&l->lock);
}

/* Whole large pages from offset on, at most `bytes`, that are a hole. */
static int64_t hole_bytes(int fd, int64_t offset, int64_t bytes)
{
    off_t data = lseek(fd, offset, SEEK_DATA);

    if (data >= 0) {
        bytes = MIN(bytes, data - offset);
    } else if (errno != ENXIO) {
        return 0;
    }
    return bytes & ~(int64_t)(LARGE_PAGE_BYTES - 1);
}

/*
 * Large pages are made where there is a page already: one small page each. It also makes the file
 * as long as writing would.
 */
static bool seed(int fd, int64_t offset, int64_t bytes)
{
    for (int64_t end = offset + LARGE_PAGE_BYTES; end <= offset + bytes; end += LARGE_PAGE_BYTES) {
        if (fallocate(fd, 0, end - SMALL_PAGE_BYTES, SMALL_PAGE_BYTES) < 0) {
            return false;
        }
    }
    return true;
}

/* Reads into pages of the target; the kernel answers EFAULT where they are gone meanwhile. */
static int64_t read_into(int in_fd, int64_t in_offset, uint8_t *map, int64_t bytes)
{
    int64_t done = 0;

    while (done < bytes) {
        ssize_t n = pread(in_fd, map + done, bytes - done, in_offset + done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break; /* the copy of the rest finds out why */
        }
        done += n;
    }
    return done;
}

/* Whole large pages; returns how much of them was copied. */
static int64_t copy_pages(int in_fd, int64_t in_offset, int out_fd, int64_t out_offset,
                          int64_t bytes)
{
    uint8_t *room, *map;
    int64_t done = 0;

    if (!seed(out_fd, out_offset, bytes)) {
        return 0;
    }
    room = mmap(NULL, bytes + LARGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) {
        return 0;
    }
    map = (uint8_t *)(((uintptr_t)room + LARGE_PAGE_BYTES - 1) & -(uintptr_t)LARGE_PAGE_BYTES);
    map = mmap(map, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, out_fd, out_offset);
    if (map != MAP_FAILED && madvise(map, bytes, MADV_COLLAPSE) == 0) {
        done = read_into(in_fd, in_offset, map, bytes);
    }
    munmap(room, bytes + LARGE_PAGE_BYTES);
    return done;
}

/* Those of the bytes that are whole large pages of a hole. */
static int64_t try_pages(FileLargePages *l, int in_fd, int64_t in_offset, int out_fd,
                         int64_t out_offset, int64_t bytes)
{
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME), done;

    bytes = hole_bytes(out_fd, out_offset, bytes);
    if (!bytes) {
        return 0;
    }
    done = copy_pages(in_fd, in_offset, out_fd, out_offset, bytes);
    note_large(l, done, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start);
    return done;
}

int64_t file_large_copy(FileLargePages *l, int in_fd, int64_t in_offset, int out_fd,
                        int64_t out_offset, int64_t bytes, int64_t *others)
{
    int64_t until = -out_offset & (LARGE_PAGE_BYTES - 1), done = 0;

    if (until + LARGE_PAGE_BYTES > bytes) {
        *others = bytes;
    } else if (until) {
        *others = until;
    } else {
        int64_t window = next_window(l);

        if (window) {
            done = try_pages(l, in_fd, in_offset, out_fd, out_offset, MIN(bytes, window));
        }
        *others = done ? 0 : LARGE_PAGE_BYTES;
    }
    return done;
}
