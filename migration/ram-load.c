/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading records into guest memory. The peer is not trusted: a block, an offset or a length
 * is checked before anything is done with it.
 */
#include "migration/ram-load.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "memory/address-space.h"
#include "migration/multifd.h"
#include "migration/ram-mapped.h"
#include "migration/ram.h"
#include "util/bql.h"
#include "util/bswap.h"
#include "util/error.h"

/* Most pages that are expected to follow one another. */
#define RUN_MAX_PAGES 512
/* The same through a buffer, which fits into a core's cache. */
#define SCRATCH_PAGES 64
#define ZERO_RECORD   9 /* bytes: header and fill byte */

RAMLoadState *ram_load_new(MigrationIncomingState *mis, GError **errp)
{
    RAMRecv *recv = ram_recv_new(mis->settings, errp);
    RAMLoadState *rl;

    if (!recv) {
        return NULL;
    }
    rl = g_new0(RAMLoadState, 1);
    rl->mis = mis;
    rl->recv = recv;
    rl->scratch = g_malloc(SCRATCH_PAGES * TARGET_PAGE_SIZE);
    if (mis->multifd) {
        multifd_recv_set_ram(mis, recv);
    }
    return rl;
}

void ram_load_free(RAMLoadState *rl)
{
    if (rl) {
        if (rl->mis->multifd) {
            multifd_recv_set_ram(rl->mis, NULL);
        }
        mapped_io_free(rl->mapped);
        ram_recv_free(rl->recv);
        g_free(rl->scratch);
        g_free(rl);
    }
}

/* --- the list of blocks --- */

static RAMRecvBlock *find_listed(RAMLoadState *rl, const char *name)
{
    for (unsigned i = 0; i < rl->recv->n; i++) {
        if (!strcmp(rl->recv->blocks[i].block->idstr, name)) {
            return &rl->recv->blocks[i];
        }
    }
    return NULL;
}

static bool adopt_length(RAMRecvBlock *rb, uint64_t length, GError **errp)
{
    bool ok = true;

    if (length != ram_block_used_length(rb->block)) {
        bql_lock();
        ok = ram_block_resize(rb->block, length, errp);
        bql_unlock();
    }
    return ok;
}

static int load_listed_block(RAMLoadState *rl, QEMUFile *f, uint64_t left, uint64_t *length,
                             GError **errp)
{
    RAMRecvBlock *rb;
    char name[256];
    int ret;

    (void)!qemu_get_counted_string(f, name);
    *length = qemu_get_be64(f);
    ret = qemu_file_get_error_obj(f, errp);
    if (ret < 0) {
        return ret;
    }
    rb = find_listed(rl, name);
    if (!rb) {
        error_setg(errp, "Unknown ramblock \"%s\", cannot accept migration", name);
        return -EINVAL;
    }
    if (*length == 0 || *length & (TARGET_PAGE_SIZE - 1) || *length > left) {
        error_setg(errp,
                   "Invalid length 0x%" PRIx64 " of ramblock \"%s\": 0x%" PRIx64
                   " bytes of the total are left",
                   *length, name, left);
        return -EINVAL;
    }
    if (!adopt_length(rb, *length, errp)) {
        return -EINVAL;
    }
    if (migrate_ignore_shared(rl->mis->settings)) {
        g_autoptr(FlatView) view = address_space_get_flatview(get_address_space_memory());
        uint64_t there = qemu_get_be64(f), here = flatview_block_address(view, rb->block);

        if (rb->ignored && qemu_file_get_error(f) == 0 && there != here) {
            error_setg(errp, "Mismatched GPAs for block %s 0x%" PRIx64 " != 0x%" PRIx64, name,
                       there, here);
            return -EINVAL;
        }
    }
    ret = qemu_file_get_error_obj(f, errp);
    if (ret == 0 && migrate_mapped_ram(rl->mis->settings)) {
        ret = ram_mapped_load_block(rl, f, rb, *length, errp);
    }
    return ret;
}

static int load_block_list(RAMLoadState *rl, QEMUFile *f, uint64_t total, GError **errp)
{
    while (total > 0) {
        uint64_t length;
        int ret = load_listed_block(rl, f, total, &length, errp);

        if (ret < 0) {
            return ret;
        }
        total -= length;
    }
    return 0;
}

/* --- pages --- */

/* The block that a page's record is about: a name follows, or it is the last one's. */
static RAMRecvBlock *record_block(RAMLoadState *rl, QEMUFile *f, uint64_t word, GError **errp)
{
    char name[256];

    if (word & RAM_SAVE_FLAG_CONTINUE) {
        if (!rl->last) {
            error_setg(errp, "Ack, bad migration stream! The first page names no block");
        }
        return rl->last;
    }
    if (qemu_get_counted_string(f, name) < 0) {
        (void)qemu_file_get_error_obj(f, errp);
        return NULL;
    }
    rl->last = ram_recv_find(rl->recv, name, errp);
    return rl->last;
}

/* How many records of zero pages that follow `page` are in the file's buffer; they are taken. */
static uint64_t more_zeroes(RAMRecvBlock *rb, QEMUFile *f, uint64_t page)
{
    const uint64_t left = (ram_block_used_length(rb->block) >> TARGET_PAGE_BITS) - page - 1;
    const uint8_t *buf;
    size_t bytes = qemu_peek_buffered(f, &buf);
    uint64_t n = 0;

    while (n < left && bytes >= (n + 1) * ZERO_RECORD) {
        const uint8_t *record = buf + n * ZERO_RECORD;
        uint64_t want = (page + n + 1) << TARGET_PAGE_BITS;

        if (ldq_be_p(record) != (want | RAM_SAVE_FLAG_ZERO | RAM_SAVE_FLAG_CONTINUE) || record[8]) {
            break;
        }
        n++;
    }
    (void)!qemu_file_skip(f, n * ZERO_RECORD);
    return n;
}

/* A zero page, and those that follow it as far as their records are there. */
static int load_zeroes(RAMRecvBlock *rb, QEMUFile *f, uint64_t page, GError **errp)
{
    uint8_t fill = qemu_get_byte(f);
    int ret = qemu_file_get_error_obj(f, errp);

    if (ret < 0) {
        return ret;
    }
    if (fill) {
        error_setg(errp, "Found a zero page with value %u", fill);
        return -EINVAL;
    }
    return ram_recv_zero(rb, page, 1 + more_zeroes(rb, f, page), errp) ? 0 : -EINVAL;
}

/* What proves not to belong where it landed was only in the buffer. */
static void restore_nothing(void *opaque, void *base, size_t size)
{
}

/*
 * A page, and those that follow it as far as the sender goes on in order. They are read into place
 * where nothing else can be lost if the guess proves wrong, and through a buffer elsewhere.
 */
static int load_pages(RAMLoadState *rl, RAMRecvBlock *rb, QEMUFile *f, uint64_t page, GError **errp)
{
    uint64_t left = (ram_block_used_length(rb->block) >> TARGET_PAGE_BITS) - page;
    uint64_t fresh = ram_recv_fresh(rb, page, MIN(left, RUN_MAX_PAGES));
    bool in_place =
        fresh > 1 && !rl->mis->multifd && !ram_recv_is_by_write(rb) && ram_recv_takes_in_place(rb);
    QEMUFileRun run = {
        .base = in_place ? rb->block->host + (page << TARGET_PAGE_BITS) : rl->scratch,
        .body_size = TARGET_PAGE_SIZE,
        .max_bodies = in_place ? fresh : MIN(left, SCRATCH_PAGES),
        .next_tag = (page + 1) << TARGET_PAGE_BITS | RAM_SAVE_FLAG_PAGE | RAM_SAVE_FLAG_CONTINUE,
        .tag_step = TARGET_PAGE_SIZE,
        .restore = in_place ? NULL : restore_nothing,
    };
    size_t n = qemu_get_run(f, &run);

    if (n == 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    if (in_place) {
        ram_recv_mark(rb, page, n);
    } else if (!ram_recv_put(rb, page, n, rl->scratch, errp)) {
        return -EINVAL;
    }
    return qemu_file_get_error_obj(f, errp);
}

static int load_delta(RAMLoadState *rl, RAMRecvBlock *rb, QEMUFile *f, uint64_t page, GError **errp)
{
    uint8_t encoding = qemu_get_byte(f);
    uint16_t length = qemu_get_be16(f);
    int ret = qemu_file_get_error_obj(f, errp);

    if (ret < 0) {
        return ret;
    }
    if (encoding != XBZRLE_ENCODING) {
        error_setg(errp, "Failed to load XBZRLE page - wrong compression!");
        return -EINVAL;
    }
    if (length > TARGET_PAGE_SIZE) {
        error_setg(errp, "Failed to load XBZRLE page - len overflow!");
        return -EINVAL;
    }
    if (qemu_get_buffer(f, rl->scratch, length) < 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    if (ram_recv_is_readonly(rb)) {
        error_setg(errp, "RAM block %s is read-only here, a page of it cannot be changed",
                   rb->block->idstr);
        return -EINVAL;
    }
    if (!ram_recv_takes_in_place(rb)) {
        error_setg(errp, "RAM block %s: a difference can only be put into guest memory",
                   rb->block->idstr);
        return -EINVAL;
    }
    if (!xbzrle_decode(rl->scratch, length, rb->block->host + (page << TARGET_PAGE_BITS),
                       TARGET_PAGE_SIZE)) {
        error_setg(errp, "Failed to load XBZRLE page - decode error!");
        return -EINVAL;
    }
    ram_recv_mark(rb, page, 1);
    return 0;
}

static int load_page_record(RAMLoadState *rl, QEMUFile *f, uint64_t word, GError **errp)
{
    uint64_t offset = word & ~(uint64_t)(TARGET_PAGE_SIZE - 1);
    RAMRecvBlock *rb = record_block(rl, f, word, errp);

    if (!rb) {
        int ret = qemu_file_get_error(f);

        return ret < 0 ? ret : -EINVAL;
    }
    if (!ram_recv_check(rb, offset, TARGET_PAGE_SIZE, errp)) {
        return -EINVAL;
    }
    offset >>= TARGET_PAGE_BITS;
    if (word & RAM_SAVE_FLAG_ZERO) {
        return load_zeroes(rb, f, offset, errp);
    }
    return word & RAM_SAVE_FLAG_PAGE ? load_pages(rl, rb, f, offset, errp)
                                     : load_delta(rl, rb, f, offset, errp);
}

/* --- records --- */

static int wait_for_channels(RAMLoadState *rl, bool here, GError **errp)
{
    return here && rl->mis->multifd ? multifd_recv_sync(rl->mis, errp) : 0;
}

static int load_record(RAMLoadState *rl, QEMUFile *f, uint64_t word, GError **errp)
{
    unsigned flags = word & (TARGET_PAGE_SIZE - 1);
    bool mapped = migrate_mapped_ram(rl->mis->settings);

    if (mapped && flags != RAM_SAVE_FLAG_MEM_SIZE && flags != RAM_SAVE_FLAG_EOS) {
        error_setg(errp, "Unexpected migration flags 0x%x: with mapped-ram pages are elsewhere",
                   flags);
        return -EINVAL;
    }
    switch (flags) {
    case RAM_SAVE_FLAG_MEM_SIZE:
        return load_block_list(rl, f, word - flags, errp);
    case RAM_SAVE_FLAG_ZERO:
    case RAM_SAVE_FLAG_ZERO | RAM_SAVE_FLAG_CONTINUE:
    case RAM_SAVE_FLAG_PAGE:
    case RAM_SAVE_FLAG_PAGE | RAM_SAVE_FLAG_CONTINUE:
    case RAM_SAVE_FLAG_XBZRLE:
    case RAM_SAVE_FLAG_XBZRLE | RAM_SAVE_FLAG_CONTINUE:
        return load_page_record(rl, f, word, errp);
    case RAM_SAVE_FLAG_MULTIFD_FLUSH:
        rl->barriers_by_flush |= !rl->first_section_read;
        return wait_for_channels(rl, true, errp);
    case RAM_SAVE_FLAG_EOS:
        rl->first_section_read = true;
        return wait_for_channels(rl, !rl->barriers_by_flush && !mapped, errp);
    case RAM_SAVE_FLAG_HOOK: /* for RDMA, of which there is none */
        return 0;
    default:
        error_setg(errp, "Unknown combination of migration flags: 0x%x", flags);
        return -EINVAL;
    }
}

int ram_load_section(RAMLoadState *rl, QEMUFile *f, int version_id, GError **errp)
{
    uint64_t word;
    int ret;

    if (version_id != RAM_SAVE_VERSION) {
        error_setg(errp, "Version %d of guest memory is not known, only %d", version_id,
                   RAM_SAVE_VERSION);
        return -EINVAL;
    }
    do {
        word = qemu_get_be64(f);
        ret = qemu_file_get_error_obj(f, errp);
        if (ret == 0) {
            ret = load_record(rl, f, word, errp);
        }
    } while (ret == 0 && (word & (TARGET_PAGE_SIZE - 1)) != RAM_SAVE_FLAG_EOS);
    return ret;
}

int ram_load_complete(RAMLoadState *rl, GError **errp)
{
    return ram_recv_settle(rl->recv, errp) ? 0 : -EINVAL;
}
