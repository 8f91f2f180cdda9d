/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finding pages that were never touched. */
#include "memory/populated.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "util/page-bitmap.h"

/* linux/fs.h since Linux 6.7; Documentation/admin-guide/mm/pagemap.rst. */
struct scan_region {
    uint64_t start, end, categories;
};

struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_IOCTL   _IOWR('f', 16, struct scan_arg)
#define SCAN_PRESENT (UINT64_C(1) << 3)
#define SCAN_SWAPPED (UINT64_C(1) << 4)
#define SCAN_PFNZERO (UINT64_C(1) << 5)

/* An entry of /proc/self/pagemap. */
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED (UINT64_C(1) << 62)
#define PAGEMAP_ENTRIES 4096 /* read at a time */

#define SCAN_REGIONS 512

static bool scan_disabled;

void ram_block_populated_disable_scan(bool disable)
{
    scan_disabled = disable;
}

/* Marks bytes [start, end) of the range; both may lie between pages. */
static void set_bytes(uint64_t *map, uint64_t start, uint64_t end)
{
    page_bitmap_set(map, start >> TARGET_PAGE_BITS,
                    (end + TARGET_PAGE_SIZE - 1) >> TARGET_PAGE_BITS);
}

/*
 * Present pages but for those that show the page of zeroes, which is mapped where a thread has only
 * read. -errno when the kernel does not have it.
 */
static int scan_by_ioctl(int fd, const uint8_t *host, uint64_t bytes, uint64_t *map)
{
    g_autofree struct scan_region *regions = g_new(struct scan_region, SCAN_REGIONS);
    uint64_t base = (uintptr_t)host;
    struct scan_arg arg = {
        .size = sizeof(arg),
        .start = base,
        .end = base + bytes,
        .vec = (uintptr_t)regions,
        .vec_len = SCAN_REGIONS,
        .category_inverted = SCAN_PFNZERO,
        .category_mask = SCAN_PFNZERO,
        .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
        .return_mask = SCAN_PRESENT | SCAN_SWAPPED,
    };

    while (arg.start < arg.end) {
        int n = ioctl(fd, SCAN_IOCTL, &arg);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 || n > SCAN_REGIONS || arg.walk_end <= arg.start) {
            return n < 0 ? -errno : -EIO;
        }
        for (int i = 0; i < n; i++) {
            set_bytes(map, regions[i].start - base, regions[i].end - base);
        }
        arg.start = arg.walk_end;
    }
    return 0;
}

static int scan_by_reading(int fd, const uint8_t *host, uint64_t bytes, uint64_t *map)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t first = (uintptr_t)host / page, n = bytes / page, done = 0;
    g_autofree uint64_t *entries = g_new(uint64_t, PAGEMAP_ENTRIES);

    while (done < n) {
        size_t want = MIN(n - done, PAGEMAP_ENTRIES) * sizeof(entries[0]);
        ssize_t got = pread(fd, entries, want, (off_t)((first + done) * sizeof(entries[0])));

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < (ssize_t)sizeof(entries[0])) {
            return got < 0 ? -errno : -EIO;
        }
        for (size_t i = 0; i < (size_t)got / sizeof(entries[0]); i++) {
            if (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) {
                set_bytes(map, (done + i) * page, (done + i + 1) * page);
            }
        }
        done += (size_t)got / sizeof(entries[0]);
    }
    return 0;
}

static bool scan_pagemap(const uint8_t *host, uint64_t bytes, uint64_t *map)
{
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), ret;

    if (fd < 0) {
        return false;
    }
    ret = scan_disabled ? -ENOTTY : scan_by_ioctl(fd, host, bytes, map);
    if (ret < 0) {
        ret = scan_by_reading(fd, host, bytes, map);
    }
    close(fd);
    return ret == 0;
}

/* Marks the file's data. What lies behind its end was cut off: nothing is known of it. */
static bool scan_file(const RAMBlock *block, uint64_t offset, uint64_t bytes, uint64_t *map)
{
    off_t start = (off_t)(block->fd_offset + offset), end = start + (off_t)bytes, at = start;

    while (at < end) {
        /* SEEK_* move the descriptor's position, which nothing else uses. */
        off_t data = lseek(block->fd, at, SEEK_DATA), hole;

        if (data < 0) {
            return errno == ENXIO;
        }
        if (data >= end) {
            break;
        }
        hole = lseek(block->fd, data, SEEK_HOLE);
        if (hole <= data) {
            return false;
        }
        set_bytes(map, (uint64_t)(data - start), (uint64_t)(MIN(hole, end) - start));
        at = hole;
    }
    return true;
}

bool ram_block_populated(const RAMBlock *block, uint64_t offset, uint64_t bytes, uint64_t *map)
{
    size_t pages = bytes >> TARGET_PAGE_BITS, words = page_bitmap_words(pages);
    uint32_t flags = ram_block_flags(block);
    bool known = !(flags & RAM_DEVICE) && !block->foreign;

    g_assert(!((offset | bytes) & ~TARGET_PAGE_MASK));
    g_assert(offset <= block->max_length && bytes <= block->max_length - offset);
    memset(map, 0, words * sizeof(map[0]));
    if (known && block->fd >= 0) {
        known = scan_file(block, offset, bytes, map);
    }
    /* A private mapping has pages of its own where it was written; others show the file. */
    if (known && !(flags & RAM_SHARED)) {
        known = scan_pagemap(block->host + offset, bytes, map);
    } else if (known && block->fd < 0) {
        /* Shared and anonymous: pages may exist that this mapping has not seen. */
        known = false;
    }
    if (!known) {
        page_bitmap_set(map, 0, pages);
    }
    return known;
}
