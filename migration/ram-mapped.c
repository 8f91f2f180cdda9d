/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mapped-ram: pages at fixed places of a file. */
#include "migration/ram-mapped.h"

#include <errno.h>
#include <inttypes.h>
#include "migration/page-bitmap.h"
#include "util/bufferiszero.h"
#include "util/error.h"
#include "util/units.h"

#define HEADER_VERSION 1
#define HEADER_SIZE    28
#define PAGES_ALIGN    (1 * MiB)
/* Pages that are read at a time. */
#define READ_PAGES 1024

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

static int write_pages(RAMSaveState *rs, QEMUFile *f, RAMSaveBlock *sb, uint64_t first,
                       uint64_t end)
{
    const struct iovec iov = {sb->block->host + (first << TARGET_PAGE_BITS),
                              (end - first) << TARGET_PAGE_BITS};
    GError *err = NULL;
    int ret =
        qio_channel_pwritev_all(qemu_file_get_ioc(f), &iov, 1,
                                (off_t)(sb->pages_offset + (first << TARGET_PAGE_BITS)), &err);

    if (ret < 0) {
        return fail(f, ret, err);
    }
    page_bitmap_set_atomic(sb->file_bitmap, first, end);
    stat64_add(&rs->s->counters.normal_pages, end - first);
    stat64_add(&rs->s->counters.mapped_bytes, iov.iov_len);
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

int ram_mapped_save_run(RAMSaveState *rs, QEMUFile *f, const RAMRun *run)
{
    bool detect = migrate_zero_page_detection(rs->s->settings) != ZERO_PAGE_DETECTION_NONE;
    uint64_t at = run->first, end = run->first + run->n;

    if (run->untouched) {
        note_zero(rs, run->sb, at, end);
        return 0;
    }
    while (at < end) {
        uint64_t data = detect ? find_page(run->sb, at, end, false) : at;
        uint64_t zero = detect ? find_page(run->sb, data, end, true) : end;

        note_zero(rs, run->sb, at, data);
        if (data < zero) {
            int ret = write_pages(rs, f, run->sb, data, zero);

            if (ret < 0) {
                return ret;
            }
        }
        at = zero;
    }
    return 0;
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
    int ret = 0;

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

/* Everything lies where a file can have bytes. */
static bool header_is_sane(const MappedHeader *h, uint64_t pages, GError **errp)
{
    const uint64_t max = INT64_MAX, length = pages << TARGET_PAGE_BITS;

    if (h->version == 0 || h->version > HEADER_VERSION) {
        error_setg(errp, "Migration mapped-ram header version %" PRIu32 " is not known, only %d",
                   h->version, HEADER_VERSION);
    } else if (h->page_size != TARGET_PAGE_SIZE) {
        error_setg(errp, "mapped-ram: pages of 0x%" PRIx64 " bytes, not 0x%" PRIx64, h->page_size,
                   (uint64_t)TARGET_PAGE_SIZE);
    } else if (h->pages_offset % TARGET_PAGE_SIZE || h->pages_offset > max ||
               length > max - h->pages_offset) {
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

static int read_pages(RAMLoadState *rl, QEMUFile *f, RAMRecvBlock *rb, uint64_t page, uint64_t n,
                      uint64_t offset, GError **errp)
{
    uint8_t *host = rb->block->host + (page << TARGET_PAGE_BITS);
    bool readonly = ram_recv_is_readonly(rb);
    struct iovec iov;
    int ret;

    while (n > 0) {
        uint64_t piece = readonly ? 1 : MIN(n, READ_PAGES);

        iov.iov_base = readonly ? rl->scratch : host;
        iov.iov_len = piece << TARGET_PAGE_BITS;
        ret = qio_channel_preadv_all(qemu_file_get_ioc(f), &iov, 1, (off_t)offset, errp);
        if (ret < 0) {
            g_prefix_error(errp, "Reading RAM block '%s' at offset 0x%" PRIx64 ": ",
                           rb->block->idstr, page << TARGET_PAGE_BITS);
            return ret;
        }
        if (readonly && !ram_recv_compare(rb, page, rl->scratch, errp)) {
            return -EINVAL;
        }
        ram_recv_mark(rb, page, piece);
        page += piece;
        n -= piece;
        host += iov.iov_len;
        offset += iov.iov_len;
    }
    return 0;
}

static int read_block(RAMLoadState *rl, QEMUFile *f, RAMRecvBlock *rb, const MappedHeader *h,
                      uint64_t pages, GError **errp)
{
    g_autofree uint64_t *map = page_bitmap_try_new(pages);
    struct iovec iov = {map, bitmap_bytes(pages)};
    uint64_t at = 0;
    int ret;

    if (!map) {
        error_setg(errp, "Not enough memory for the bitmap of RAM block '%s'", rb->block->idstr);
        return -ENOMEM;
    }
    ret = qio_channel_preadv_all(qemu_file_get_ioc(f), &iov, 1, (off_t)h->bitmap_offset, errp);
    for (size_t i = 0; i < page_bitmap_words(pages); i++) {
        map[i] = GUINT64_FROM_LE(map[i]);
    }
    if (ret < 0) {
        g_prefix_error(errp, "Reading the bitmap of RAM block '%s': ", rb->block->idstr);
    }
    while (ret == 0 && at < pages) {
        uint64_t data = page_bitmap_find(map, at, pages, true);
        uint64_t zero = page_bitmap_find(map, data, pages, false);

        if (!ram_recv_zero(rb, at, data - at, errp)) {
            return -EINVAL;
        }
        if (data < zero) {
            ret = read_pages(rl, f, rb, data, zero - data,
                             h->pages_offset + (data << TARGET_PAGE_BITS), errp);
        }
        at = zero;
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

    if (!ioc || !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE)) {
        error_setg(errp, "Migration requires seekable transport: mapped-ram is for files");
        return -EINVAL;
    }
    h.version = qemu_get_be32(f);
    h.page_size = qemu_get_be64(f);
    h.bitmap_offset = qemu_get_be64(f);
    h.pages_offset = qemu_get_be64(f);
    ret = qemu_file_get_error_obj(f, errp);
    if (ret < 0) {
        return ret;
    }
    if (!header_is_sane(&h, pages, errp)) {
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
