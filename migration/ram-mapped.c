/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mapped-ram: pages at fixed places of a file. */
#include "migration/ram-mapped.h"

#include <errno.h>
#include <inttypes.h>
#include "util/page-bitmap.h"
#include "util/bufferiszero.h"
#include "util/error.h"
#include "util/units.h"

#define HEADER_VERSION 1
#define HEADER_SIZE    28
#define PAGES_ALIGN    (1 * MiB)
/* Pages that are read at a time. */
#define READ_PAGES 1024
/* Pages that are put at a time: they are in the processor's cache meanwhile. */
#define PUT_PAGES 64

static uint64_t bitmap_bytes(uint64_t pages)
{
    return page_bitmap_words(pages) * 8;
}

/* --- saving --- */

static int fail(QEMUFile *f, int ret, GError *err)
{
    qemu_file_set_error_obj(f, ret, err);
    return qemu_file_get_error(f);
}

int ram_mapped_save_header(QEMUFile *f, RAMSaveBlock *sb)
{
    GError *err = NULL;
    off_t at = qemu_get_offset(f);

    if (at < 0) {
        return (int)at;
    }
    sb->file_bitmap = page_bitmap_try_new(sb->pages);
    if (!sb->file_bitmap) {
        error_setg(&err, "Not enough memory for the bitmap of RAM block '%s'", sb->block->idstr);
        return fail(f, -ENOMEM, err);
    }
    sb->bitmap_offset = (uint64_t)at + HEADER_SIZE;
    sb->pages_offset = (sb->bitmap_offset + bitmap_bytes(sb->pages) + PAGES_ALIGN - 1) &
                       ~(uint64_t)(PAGES_ALIGN - 1);
    qemu_put_be32(f, HEADER_VERSION);
    qemu_put_be64(f, TARGET_PAGE_SIZE);
    qemu_put_be64(f, sb->bitmap_offset);
    qemu_put_be64(f, sb->pages_offset);
    return qemu_set_offset(f, (off_t)(sb->pages_offset + (sb->pages << TARGET_PAGE_BITS)));
}

static void note_zero(RAMSaveState *rs, RAMSaveBlock *sb, uint64_t first, uint64_t end)
{
    page_bitmap_clear_atomic(sb->file_bitmap, first, end);
    stat64_add(&rs->s->counters.zero_pages, end - first);
}

static int write_pages(RAMSaveState *rs, QIOChannel *file, RAMSaveBlock *sb, uint64_t first,
                       uint64_t end, GError **errp)
{
    MigrationCounters *counters = &rs->s->counters;
    const struct iovec iov = {sb->block->host + (first << TARGET_PAGE_BITS),
                              (end - first) << TARGET_PAGE_BITS};
    int ret = qio_channel_pwritev_all(
        file, &iov, 1, (off_t)(sb->pages_offset + (first << TARGET_PAGE_BITS)), errp);

    if (ret < 0) {
        return ret;
    }
    page_bitmap_set_atomic(sb->file_bitmap, first, end);
    stat64_add(&counters->normal_pages, end - first);
    stat64_add(migrate_multifd(rs->s->settings) ? &counters->multifd_bytes
                                                : &counters->mapped_bytes,
               iov.iov_len);
    return 0;
}

/* The first page of [from, end) that is not (or is) zero. */
static uint64_t find_page(const RAMSaveBlock *sb, uint64_t from, uint64_t end, bool zero)
{
    while (from < end &&
           buffer_is_zero(sb->block->host + (from << TARGET_PAGE_BITS), TARGET_PAGE_SIZE) != zero) {
        from++;
    }
    return from;
}

/* Writes the pages of a range but for those that are zero. A thread of rs->mapped. */
static int save_range(void *opaque, QIOChannel *file, void *scratch, const MappedRange *range,
                      GError **errp)
{
    RAMSaveState *rs = opaque;
    RAMSaveBlock *sb = range->block;
    bool detect = migrate_zero_page_detection(rs->s->settings) != ZERO_PAGE_DETECTION_NONE;
    uint64_t at = range->first, end = range->first + range->n;

    while (at < end) {
        uint64_t data = detect ? find_page(sb, at, end, false) : at;
        uint64_t zero = detect ? find_page(sb, data, end, true) : end;

        note_zero(rs, sb, at, data);
        if (data < zero) {
            int ret = write_pages(rs, file, sb, data, zero, errp);

            if (ret < 0) {
                return ret;
            }
        }
        at = zero;
    }
    return 0;
}

static int open_to_write(void *opaque, bool direct, GError **errp)
{
    RAMSaveState *rs = opaque;

    return migration_connector_open_extra(rs->s->connector, direct, errp);
}

static void saving_failed(void *opaque, GError *err)
{
    RAMSaveState *rs = opaque;

    migrate_fail(rs->s, err);
}

bool ram_mapped_save_begin(RAMSaveState *rs, QEMUFile *f, GError **errp)
{
    const MigrationSettings *settings = rs->s->settings;
    const MappedIOOptions options = {
        .threads = migrate_multifd(settings) ? migrate_multifd_channels(settings) : 0,
        .thread_name = "mig/src/send",
        .direct = migrate_direct_io(settings),
        .stream = qemu_file_get_ioc(f),
        .opaque = rs,
        .open = open_to_write,
        .move = save_range,
        .failed = saving_failed,
    };

    rs->mapped = mapped_io_new(&options, errp);
    return rs->mapped;
}

int ram_mapped_save_run(RAMSaveState *rs, QEMUFile *f, const RAMRun *run)
{
    const MappedRange range = {run->sb, run->first, run->n};
    GError *err = NULL;
    int ret;

    if (run->untouched) {
        /* of the first pass: no thread has written anything for them */
        note_zero(rs, run->sb, run->first, run->first + run->n);
        return 0;
    }
    ret = mapped_io_submit(rs->mapped, &range, &err);
    return ret < 0 ? fail(f, ret, err) : 0;
}

int ram_mapped_save_barrier(RAMSaveState *rs, QEMUFile *f)
{
    GError *err = NULL;
    int ret = mapped_io_wait(rs->mapped, &err);

    return ret < 0 ? fail(f, ret, err) : 0;
}

static int write_bitmap(QEMUFile *f, RAMSaveBlock *sb)
{
    size_t words = page_bitmap_words(sb->pages);
    const struct iovec iov = {sb->file_bitmap, words * 8};
    GError *err = NULL;
    int ret;

    for (size_t i = 0; i < words; i++) {
        sb->file_bitmap[i] = GUINT64_TO_LE(sb->file_bitmap[i]);
    }
    ret = qio_channel_pwritev_all(qemu_file_get_ioc(f), &iov, 1, (off_t)sb->bitmap_offset, &err);
    return ret < 0 ? fail(f, ret, err) : 0;
}

int ram_mapped_save_bitmaps(RAMSaveState *rs, QEMUFile *f)
{
    GError *err = NULL;
    int ret = mapped_io_finish(rs->mapped, &err);

    if (ret < 0) {
        return fail(f, ret, err);
    }
    for (unsigned i = 0; i < rs->blocks->len && ret == 0; i++) {
        ret = write_bitmap(f, &g_array_index(rs->blocks, RAMSaveBlock, i));
    }
    return ret;
}

/* --- loading --- */

typedef struct MappedHeader {
    uint32_t version;
    uint64_t page_size, bitmap_offset, pages_offset;
} MappedHeader;

/*
 * Everything lies where a file can have bytes, and the stream goes on behind `at`, where it is now: one
 * that leads back could go around for ever.
 */
static bool header_is_sane(const MappedHeader *h, uint64_t at, uint64_t pages, GError **errp)
{
    const uint64_t max = INT64_MAX, length = pages << TARGET_PAGE_BITS;

    if (h->version == 0 || h->version > HEADER_VERSION) {
        error_setg(errp, "Migration mapped-ram header version %" PRIu32 " is not known, only %d",
                   h->version, HEADER_VERSION);
    } else if (h->page_size != TARGET_PAGE_SIZE) {
        error_setg(errp, "mapped-ram: pages of 0x%" PRIx64 " bytes, not 0x%" PRIx64, h->page_size,
                   (uint64_t)TARGET_PAGE_SIZE);
    } else if (h->pages_offset % TARGET_PAGE_SIZE || h->pages_offset < at ||
               h->pages_offset > max || length > max - h->pages_offset) {
        error_setg(errp, "Error reading ramblock header: invalid offset of pages 0x%" PRIx64,
                   h->pages_offset);
    } else if (h->bitmap_offset > max || bitmap_bytes(pages) > max - h->bitmap_offset) {
        error_setg(errp, "Error reading ramblock header: invalid offset of the bitmap 0x%" PRIx64,
                   h->bitmap_offset);
    } else {
        return true;
    }
    return false;
}

/* A block whose pages are being read. */
typedef struct MappedSource {
    RAMRecvBlock *rb;
    uint64_t pages_offset;
} MappedSource;

/* Pages for memory that does not take them in place (ram_recv_put()). */
static int read_and_put(QIOChannel *file, const MappedSource *source, void *scratch, uint64_t page,
                        uint64_t end, GError **errp)
{
    int ret = 0;

    while (page < end && ret == 0) {
        uint64_t n = MIN(end - page, PUT_PAGES);
        const struct iovec iov = {scratch, n << TARGET_PAGE_BITS};

        ret = qio_channel_preadv_all(
            file, &iov, 1, (off_t)(source->pages_offset + (page << TARGET_PAGE_BITS)), errp);
        if (ret == 0 && !ram_recv_put(source->rb, page, n, scratch, errp)) {
            ret = -EINVAL;
        }
        page += n;
    }
    return ret;
}

/* Any thread of rl->mapped. */
static int load_range(void *opaque, QIOChannel *file, void *scratch, const MappedRange *range,
                      GError **errp)
{
    const MappedSource *source = range->block;
    const RAMLoadState *rl = opaque;
    RAMRecvBlock *rb = source->rb;
    /* past the page cache it is the disk that takes the time, and short reads cost it more */
    bool by_write = ram_recv_is_by_write(rb) && !migrate_direct_io(rl->mis->settings);
    uint64_t offset = range->first << TARGET_PAGE_BITS;
    const struct iovec iov = {rb->block->host + offset, range->n << TARGET_PAGE_BITS};
    int ret;

    if (!ram_recv_takes_in_place(rb) || by_write) {
        ret = read_and_put(file, source, scratch, range->first, range->first + range->n, errp);
    } else {
        ret = qio_channel_preadv_all(file, &iov, 1, (off_t)(source->pages_offset + offset), errp);
        ram_recv_mark(rb, range->first, range->n);
    }
    if (ret < 0) {
        g_prefix_error(errp, "Reading RAM block '%s' at offset 0x%" PRIx64 ": ", rb->block->idstr,
                       offset);
    }
    return ret;
}

static int open_to_read(void *opaque, bool direct, GError **errp)
{
    RAMLoadState *rl = opaque;

    return migration_listener_open_extra(rl->mis->listener, direct, errp);
}

/* Before the first block's pages. */
static bool prepare_to_load(RAMLoadState *rl, QIOChannel *stream, GError **errp)
{
    const MigrationSettings *settings = rl->mis->settings;
    const MappedIOOptions options = {
        .threads = migrate_multifd(settings) ? migrate_multifd_channels(settings) : 0,
        .thread_name = "mig/dst/recv",
        .direct = migrate_direct_io(settings),
        .scratch_bytes = PUT_PAGES * TARGET_PAGE_SIZE,
        .stream = stream,
        .opaque = rl,
        .open = open_to_read,
        .move = load_range,
    };

    if (!rl->mapped) {
        rl->mapped = mapped_io_new(&options, errp);
    }
    return rl->mapped;
}

static int read_bitmap(QEMUFile *f, RAMRecvBlock *rb, const MappedHeader *h, uint64_t *map,
                       uint64_t pages, GError **errp)
{
    const struct iovec iov = {map, bitmap_bytes(pages)};
    int ret = qio_channel_preadv_all(qemu_file_get_ioc(f), &iov, 1, (off_t)h->bitmap_offset, errp);

    if (ret < 0) {
        g_prefix_error(errp, "Reading the bitmap of RAM block '%s': ", rb->block->idstr);
    }
    for (size_t i = 0; ret == 0 && i < page_bitmap_words(pages); i++) {
        map[i] = GUINT64_FROM_LE(map[i]);
    }
    return ret;
}

/* The pages that the bitmap says are there are read, the others zeroed. */
static int submit_pages(RAMLoadState *rl, MappedSource *source, const uint64_t *map, uint64_t pages,
                        GError **errp)
{
    uint64_t at = 0;

    while (at < pages) {
        uint64_t data = page_bitmap_find(map, at, pages, true);
        uint64_t zero = page_bitmap_find(map, data, pages, false);

        if (!ram_recv_zero(source->rb, at, data - at, errp)) {
            return -EINVAL;
        }
        while (data < zero) {
            const MappedRange range = {source, data, MIN(zero - data, READ_PAGES)};
            int ret = mapped_io_submit(rl->mapped, &range, errp);

            if (ret < 0) {
                return ret;
            }
            data += range.n;
        }
        at = zero;
    }
    return 0;
}

static int read_block(RAMLoadState *rl, QEMUFile *f, RAMRecvBlock *rb, const MappedHeader *h,
                      uint64_t pages, GError **errp)
{
    g_autofree uint64_t *map = page_bitmap_try_new(pages);
    MappedSource source = {rb, h->pages_offset};
    int ret;

    if (!map) {
        error_setg(errp, "Not enough memory for the bitmap of RAM block '%s'", rb->block->idstr);
        return -ENOMEM;
    }
    if (!prepare_to_load(rl, qemu_file_get_ioc(f), errp)) {
        return -EINVAL;
    }
    ret = read_bitmap(f, rb, h, map, pages, errp);
    if (ret == 0) {
        int moved;

        ret = submit_pages(rl, &source, map, pages, errp);
        moved = mapped_io_wait(rl->mapped, ret == 0 ? errp : NULL);
        ret = ret == 0 ? moved : ret;
    }
    return ret;
}

int ram_mapped_load_block(RAMLoadState *rl, QEMUFile *f, RAMRecvBlock *rb, uint64_t length,
                          GError **errp)
{
    QIOChannel *ioc = qemu_file_get_ioc(f);
    uint64_t pages = length >> TARGET_PAGE_BITS;
    MappedHeader h;
    int ret;

    off_t at;

    if (!ioc || !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE)) {
        error_setg(errp, "Migration requires seekable transport: mapped-ram is for files");
        return -EINVAL;
    }
    if (rb->mapped) {
        error_setg(errp, "RAM block '%s' is twice in the list", rb->block->idstr);
        return -EINVAL;
    }
    rb->mapped = true;
    h.version = qemu_get_be32(f);
    h.page_size = qemu_get_be64(f);
    h.bitmap_offset = qemu_get_be64(f);
    h.pages_offset = qemu_get_be64(f);
    at = qemu_get_offset(f);
    if (at < 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    if (!header_is_sane(&h, (uint64_t)at, pages, errp)) {
        return -EINVAL;
    }
    if (!rb->ignored) {
        ret = read_block(rl, f, rb, &h, pages, errp);
        if (ret < 0) {
            return ret;
        }
    }
    if (qemu_set_offset(f, (off_t)(h.pages_offset + length)) < 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    return 0;
}
