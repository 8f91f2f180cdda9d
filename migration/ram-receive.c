/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest memory at the destination: which pages have arrived, and putting bytes into them. */
#include "migration/ram-receive.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "memory/populated.h"
#include "util/page-bitmap.h"
#include "migration/ram.h"
#include "util/bufferiszero.h"
#include "util/error.h"

#define RAM_HUGE_BYTES (2 * 1024 * 1024)
/* Pages whose state is asked for at a time at the end. */
#define SETTLE_PAGES   (32 * 1024)
#define SHMEM_SETTINGS "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

/*
 * Shared memory in a file of ordinary pages. Where a fault would bring a huge page, taking faults
 * serves the guest better. A file system tells that by its preferred block size. The kernel's own
 * file system for memory without a path goes by madvise(2), and tells it in its settings.
 */
static bool is_written(const RAMBlock *block)
{
    const uint32_t want = RAM_SHARED, not_these = RAM_READONLY | RAM_DEVICE;
    uint32_t flags = ram_block_flags(block);
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    g_autofree char *settings = NULL;
    struct stat st;

    if (block->fd < 0 || (flags & (want | not_these)) != want || block->page_size != page_size ||
        fstat(block->fd, &st) < 0 || (size_t)st.st_blksize >= RAM_HUGE_BYTES) {
        return false;
    }
    return flags & RAM_NAMED_FILE || !g_file_get_contents(SHMEM_SETTINGS, &settings, NULL, NULL) ||
           !strstr(settings, "[advise]");
}

static bool recv_block_init(RAMRecv *recv, RAMBlock *block, const MigrationSettings *settings,
                            GError **errp)
{
    RAMRecvBlock *rb = &recv->blocks[recv->n++];

    ram_block_ref(block);
    rb->recv = recv;
    rb->block = block;
    rb->ignored = ram_block_is_ignored(block, settings);
    rb->pages = block->max_length >> TARGET_PAGE_BITS;
    rb->by_write = is_written(block);
    if (rb->ignored) {
        return true;
    }
    rb->received = page_bitmap_try_new(rb->pages);
    rb->touched = page_bitmap_try_new(rb->pages);
    rb->noted = page_bitmap_try_new(rb->pages);
    if (!rb->received || !rb->touched || !rb->noted) {
        error_setg(errp, "Not enough memory for the bitmap of received pages of RAM block '%s'",
                   block->idstr);
        return false;
    }
    (void)ram_block_populated(block, 0, rb->pages << TARGET_PAGE_BITS, rb->touched);
    return true;
}

RAMRecv *ram_recv_new(const MigrationSettings *settings, GError **errp)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();
    RAMRecv *recv = g_new0(RAMRecv, 1);

    recv->blocks = g_new0(RAMRecvBlock, list->n);
    for (unsigned i = 0; i < list->n; i++) {
        RAMBlock *block = list->blocks[i];

        if (ram_block_is_migratable(block) && !recv_block_init(recv, block, settings, errp)) {
            ram_recv_free(recv);
            return NULL;
        }
    }
    return recv;
}

void ram_recv_free(RAMRecv *recv)
{
    if (!recv) {
        return;
    }
    for (unsigned i = 0; i < recv->n; i++) {
        g_free(recv->blocks[i].received);
        g_free(recv->blocks[i].touched);
        g_free(recv->blocks[i].noted);
        ram_block_unref(recv->blocks[i].block);
    }
    g_free(recv->gathered.bytes);
    g_free(recv->blocks);
    g_free(recv);
}

RAMRecvBlock *ram_recv_find(RAMRecv *recv, const char *name, GError **errp)
{
    for (unsigned i = 0; i < recv->n; i++) {
        RAMRecvBlock *rb = &recv->blocks[i];

        if (strcmp(rb->block->idstr, name)) {
            continue;
        }
        if (rb->ignored) {
            error_setg(errp, "Block %s is shared and should not be migrated", name);
            return NULL;
        }
        return rb;
    }
    error_setg(errp, "Can't find block %s", name);
    return NULL;
}

bool ram_recv_check(const RAMRecvBlock *rb, uint64_t offset, uint64_t bytes, GError **errp)
{
    uint64_t length = ram_block_used_length(rb->block);

    if (offset & (TARGET_PAGE_SIZE - 1) || offset >= length || bytes > length - offset) {
        error_setg(errp, "Illegal RAM offset %" PRIx64 " in block %s of 0x%" PRIx64 " bytes",
                   offset, rb->block->idstr, length);
        return false;
    }
    return true;
}

uint64_t ram_recv_fresh(const RAMRecvBlock *rb, uint64_t page, uint64_t max)
{
    uint64_t end = page + MIN(max, rb->pages - page), at = page;

    while (at < end) {
        uint64_t mask = page_bitmap_mask(at, end);
        uint64_t word = rb->touched[at / 64];

        word = (word | __atomic_load_n(&rb->received[at / 64], __ATOMIC_RELAXED)) & mask;
        if (word) {
            return at / 64 * 64 + (unsigned)__builtin_ctzll(word) - page;
        }
        at = (at / 64 + 1) * 64;
    }
    return end - page;
}

void ram_recv_mark(RAMRecvBlock *rb, uint64_t page, uint64_t n)
{
    page_bitmap_set_atomic(rb->received, page, page + n);
    page_bitmap_clear_atomic(rb->noted, page, page + n);
}

bool ram_recv_is_readonly(const RAMRecvBlock *rb)
{
    return ram_block_flags(rb->block) & RAM_READONLY;
}

bool ram_recv_takes_in_place(const RAMRecvBlock *rb)
{
    return !rb->recv->place.func && !ram_recv_is_readonly(rb);
}

static bool fail_readonly(const RAMRecvBlock *rb, uint64_t page, GError **errp)
{
    error_setg(errp, "RAM block %s is read-only here and has other contents at offset 0x%" PRIx64,
               rb->block->idstr, page << TARGET_PAGE_BITS);
    return false;
}

bool ram_recv_compare(RAMRecvBlock *rb, uint64_t page, const void *data, GError **errp)
{
    if (memcmp(rb->block->host + (page << TARGET_PAGE_BITS), data, TARGET_PAGE_SIZE)) {
        return fail_readonly(rb, page, errp);
    }
    ram_recv_mark(rb, page, 1);
    return true;
}

static bool clear_page(RAMRecvBlock *rb, uint64_t page, GError **errp)
{
    uint8_t *host = rb->block->host + (page << TARGET_PAGE_BITS);

    if (!buffer_is_zero(host, TARGET_PAGE_SIZE)) {
        if (ram_recv_is_readonly(rb)) {
            return fail_readonly(rb, page, errp);
        }
        memset(host, 0, TARGET_PAGE_SIZE);
    }
    return true;
}

/* --- another place than guest memory --- */

void ram_recv_set_place(RAMRecv *recv, const RAMPlace *place)
{
    g_assert(!recv->gathered.n);
    recv->place = place ? *place : (RAMPlace){0};
}

static bool place_now(RAMRecvBlock *rb, uint64_t page, uint64_t n, const void *data, GError **errp)
{
    const RAMPlace *place = &rb->recv->place;

    if (!place->func(place->opaque, rb, page, n, data, errp)) {
        return false;
    }
    ram_recv_mark(rb, page, n);
    return true;
}

static uint64_t host_page_pages(const RAMRecvBlock *rb)
{
    return MAX(rb->block->page_size >> TARGET_PAGE_BITS, 1);
}

/* False with an error: `page` is neither the next one of what is gathered nor the first of a host page. */
static bool begin_gathering(RAMRecvBlock *rb, uint64_t page, GError **errp)
{
    RAMRecv *recv = rb->recv;
    bool follows = recv->gathered.n
                       ? recv->gathered.rb == rb && page == recv->gathered.first + recv->gathered.n
                       : page % host_page_pages(rb) == 0;

    if (!follows) {
        error_setg(errp,
                   "RAM block '%s': the page at offset 0x%" PRIx64
                   " comes before the rest of a host page of 0x%zx bytes",
                   rb->block->idstr, page << TARGET_PAGE_BITS, rb->block->page_size);
        return false;
    }
    if (!recv->gathered.n) {
        recv->gathered.rb = rb;
        recv->gathered.first = page;
        recv->gathered.zero = true;
        recv->gathered.bytes = g_realloc(recv->gathered.bytes, rb->block->page_size);
    }
    return true;
}

/* Takes pages, at most to the end of the host page; *n: how many. */
static bool gather(RAMRecvBlock *rb, uint64_t page, uint64_t *n, const uint8_t *data, GError **errp)
{
    RAMRecv *recv = rb->recv;
    uint8_t *to;

    if (!begin_gathering(rb, page, errp)) {
        return false;
    }
    *n = MIN(*n, host_page_pages(rb) - recv->gathered.n);
    to = recv->gathered.bytes + (recv->gathered.n << TARGET_PAGE_BITS);
    if (data) {
        memcpy(to, data, *n << TARGET_PAGE_BITS);
    } else {
        memset(to, 0, *n << TARGET_PAGE_BITS);
    }
    recv->gathered.zero &= !data;
    recv->gathered.n += *n;
    if (recv->gathered.n < host_page_pages(rb)) {
        return true;
    }
    recv->gathered.n = 0;
    return place_now(rb, recv->gathered.first, host_page_pages(rb),
                     recv->gathered.zero ? NULL : recv->gathered.bytes, errp);
}

/* Whole host pages in as few calls as possible, and the rest in pieces. data is NULL for zeroes. */
static bool place_pages(RAMRecvBlock *rb, uint64_t page, uint64_t n, const uint8_t *data,
                        GError **errp)
{
    const uint64_t unit = rb->recv->place.whole_host_pages ? host_page_pages(rb) : 1;

    while (n > 0) {
        uint64_t taken = n / unit * unit;
        bool whole = !rb->recv->gathered.n && page % unit == 0 && taken;

        if (!whole) {
            taken = n;
        }
        if (!(whole ? place_now(rb, page, taken, data, errp)
                    : gather(rb, page, &taken, data, errp))) {
            return false;
        }
        page += taken;
        n -= taken;
        data = data ? data + (taken << TARGET_PAGE_BITS) : NULL;
    }
    return true;
}

/* --- zero pages --- */

bool ram_recv_zero(RAMRecvBlock *rb, uint64_t page, uint64_t n, GError **errp)
{
    uint64_t end = page + n;

    if (rb->recv->place.func) {
        return place_pages(rb, page, n, NULL, errp);
    }
    while (page < end) {
        uint64_t fresh = ram_recv_fresh(rb, page, end - page);

        if (fresh) {
            page_bitmap_set_atomic(rb->received, page, page + fresh);
            page_bitmap_set_atomic(rb->noted, page, page + fresh);
            page += fresh;
            continue;
        }
        if (!page_bitmap_test_atomic(rb->noted, page)) {
            if (!clear_page(rb, page, errp)) {
                return false;
            }
            ram_recv_mark(rb, page, 1);
        }
        page++;
    }
    return true;
}

/* The same for at most SETTLE_PAGES. */
static bool settle_pages(RAMRecvBlock *rb, uint64_t first, uint64_t end, uint64_t *written,
                         GError **errp)
{
    uint64_t page = page_bitmap_find(rb->noted, first, end, true);

    if (page == end) {
        return true;
    }
    (void)ram_block_populated(rb->block, first << TARGET_PAGE_BITS,
                              (end - first) << TARGET_PAGE_BITS, written);
    for (; page < end; page = page_bitmap_find(rb->noted, page + 1, end, true)) {
        if (page_bitmap_test(written, page - first) && !clear_page(rb, page, errp)) {
            return false;
        }
    }
    return true;
}

bool ram_recv_settle(RAMRecv *recv, GError **errp)
{
    uint64_t written[SETTLE_PAGES / 64];

    if (recv->gathered.n) {
        error_setg(errp, "RAM block '%s': the host page at offset 0x%" PRIx64 " is not whole",
                   recv->gathered.rb->block->idstr, recv->gathered.first << TARGET_PAGE_BITS);
        return false;
    }
    for (unsigned i = 0; i < recv->n; i++) {
        RAMRecvBlock *rb = &recv->blocks[i];
        uint64_t end = rb->ignored ? 0 : ram_block_used_length(rb->block) >> TARGET_PAGE_BITS;

        for (uint64_t page = 0; page < end; page += SETTLE_PAGES) {
            if (!settle_pages(rb, page, MIN(end, page + SETTLE_PAGES), written, errp)) {
                return false;
            }
        }
    }
    return true;
}

/* --- putting bytes --- */

bool ram_recv_is_by_write(const RAMRecvBlock *rb)
{
    return __atomic_load_n(&rb->by_write, __ATOMIC_RELAXED);
}

/* 0; 1: this file is not one that takes writes; -errno. */
static int put_by_write(const RAMRecvBlock *rb, uint64_t offset, const uint8_t *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = pwrite(rb->block->fd, data, bytes, (off_t)(rb->block->fd_offset + offset));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            bool full = n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO);

            return full ? -errno : 1;
        }
        data += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

static bool compare_all(RAMRecvBlock *rb, uint64_t page, uint64_t n, const uint8_t *data,
                        GError **errp)
{
    for (uint64_t i = 0; i < n; i++) {
        if (!ram_recv_compare(rb, page + i, data + i * TARGET_PAGE_SIZE, errp)) {
            return false;
        }
    }
    return true;
}

bool ram_recv_put(RAMRecvBlock *rb, uint64_t page, uint64_t n, const void *data, GError **errp)
{
    uint64_t offset = page << TARGET_PAGE_BITS;
    size_t bytes = (size_t)(n << TARGET_PAGE_BITS);
    int ret = 1;

    if (rb->recv->place.func) {
        return place_pages(rb, page, n, data, errp);
    }
    if (ram_recv_is_readonly(rb)) {
        return compare_all(rb, page, n, data, errp);
    }
    if (ram_recv_is_by_write(rb)) {
        ret = put_by_write(rb, offset, data, bytes);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret,
                         "Could not write guest memory to the file of RAM block '%s' at offset "
                         "0x%" PRIx64,
                         rb->block->idstr, offset);
        return false;
    }
    if (ret > 0) {
        if (ram_recv_is_by_write(rb)) {
            __atomic_store_n(&rb->by_write, false, __ATOMIC_RELAXED);
        }
        memcpy(rb->block->host + offset, data, bytes);
    }
    ram_recv_mark(rb, page, n);
    return true;
}
