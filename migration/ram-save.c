/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Choosing pages and writing their records.
 *
 * Pages leave in runs: a header and a reference for each, gathered by the stream into a few vectored
 * writes, so that the kernel copies them from guest memory. What the kernel sees may be newer than
 * what was looked at; then the page is in the log again.
 */
#include "migration/ram-save.h"

#include <errno.h>
#include <string.h>
#include "memory/address-space.h"
#include "migration/multifd.h"
#include "migration/ram-mapped.h"
#include "util/bswap.h"
#include "util/bufferiszero.h"
#include "util/error.h"
#include "util/timer.h"

/* Most pages of a run, and how many in all between two looks at the clock. */
#define RUN_MAX_PAGES 256
#define CLOCK_RUNS    64
#define CLOCK_PAGES   4096
#define SLICE_NS      (50 * 1000 * 1000)
#define ZERO_RECORD   9 /* bytes: header and fill byte */
#define ZERO_BATCH    256

static const uint8_t zero_page[TARGET_PAGE_SIZE] __attribute__((aligned(4096)));

/* --- records --- */

static uint8_t *page_host(const RAMSaveBlock *sb, uint64_t page)
{
    return sb->block->host + (page << TARGET_PAGE_BITS);
}

/* The header of a page's record, with the block's name where it is not the last one's. */
static void put_header(RAMSaveState *rs, QEMUFile *f, const RAMSaveBlock *sb, uint64_t page,
                       unsigned flag)
{
    uint64_t word = page << TARGET_PAGE_BITS | flag;

    if (rs->last_sent == sb->block) {
        qemu_put_be64(f, word | RAM_SAVE_FLAG_CONTINUE);
        return;
    }
    qemu_put_be64(f, word);
    qemu_put_counted_string(f, sb->block->idstr);
    rs->last_sent = sb->block;
}

static void put_zero_run(RAMSaveState *rs, QEMUFile *f, const RAMRun *run)
{
    uint8_t buf[ZERO_BATCH * ZERO_RECORD];
    uint64_t page = run->first + 1, end = run->first + run->n;

    put_header(rs, f, run->sb, run->first, RAM_SAVE_FLAG_ZERO);
    qemu_put_byte(f, 0);
    while (page < end) {
        size_t n = MIN(end - page, ZERO_BATCH);

        for (size_t i = 0; i < n; i++, page++) {
            stq_be_p(buf + i * ZERO_RECORD,
                     page << TARGET_PAGE_BITS | RAM_SAVE_FLAG_ZERO | RAM_SAVE_FLAG_CONTINUE);
            buf[i * ZERO_RECORD + 8] = 0;
        }
        qemu_put_buffer(f, buf, n * ZERO_RECORD);
    }
    stat64_add(&rs->s->counters.zero_pages, run->n);
}

static void put_page_run(RAMSaveState *rs, QEMUFile *f, const RAMRun *run)
{
    for (uint64_t page = run->first; page < run->first + run->n; page++) {
        put_header(rs, f, run->sb, page, RAM_SAVE_FLAG_PAGE);
        qemu_put_buffer_async(f, run->untouched ? zero_page : page_host(run->sb, page),
                              TARGET_PAGE_SIZE);
    }
    stat64_add(&rs->s->counters.normal_pages, run->n);
}

/* --- XBZRLE --- */

static uint64_t cache_address(const RAMSaveBlock *sb, uint64_t page)
{
    return sb->block->offset + (page << TARGET_PAGE_BITS);
}

/* The cache and the destination have the same bytes of a page: those of the copy that is sent. */
static void put_delta_page(RAMSaveState *rs, QEMUFile *f, const RAMSaveBlock *sb, uint64_t page)
{
    MigrationCounters *c = &rs->s->counters;
    uint8_t now[TARGET_PAGE_SIZE], delta[TARGET_PAGE_SIZE];
    uint8_t *old = xbzrle_cache_find(rs->xbzrle, cache_address(sb, page));
    int n = -1;

    memcpy(now, page_host(sb, page), sizeof(now));
    if (old) {
        n = xbzrle_encode(old, now, sizeof(now), delta, sizeof(delta));
        stat64_add(n < 0 ? &c->xbzrle_overflow : &c->xbzrle_pages, 1);
    } else {
        stat64_add(&c->xbzrle_cache_miss, 1);
        old = xbzrle_cache_insert(rs->xbzrle, cache_address(sb, page));
    }
    if (n == 0) {
        return;
    }
    if (old) {
        memcpy(old, now, sizeof(now));
    }
    if (n < 0) {
        put_header(rs, f, sb, page, RAM_SAVE_FLAG_PAGE);
        qemu_put_buffer(f, now, sizeof(now));
        stat64_add(&c->normal_pages, 1);
        return;
    }
    put_header(rs, f, sb, page, RAM_SAVE_FLAG_XBZRLE);
    qemu_put_byte(f, XBZRLE_ENCODING);
    qemu_put_be16(f, (uint16_t)n);
    qemu_put_buffer(f, delta, (size_t)n);
    stat64_add(&c->xbzrle_bytes, (uint64_t)n + ZERO_RECORD + 2);
}

static void cache_zero_run(RAMSaveState *rs, const RAMRun *run)
{
    for (uint64_t page = run->first; page < run->first + run->n; page++) {
        uint8_t *old = xbzrle_cache_find(rs->xbzrle, cache_address(run->sb, page));

        if (old) {
            memset(old, 0, TARGET_PAGE_SIZE);
        }
    }
}

/* --- runs --- */

/* Pages with bytes in them, as far as was looked. */
static int send_data(RAMSaveState *rs, QEMUFile *f, const RAMRun *run)
{
    if (rs->s->multifd) {
        rs->multifd_unsynced = true;
        return multifd_send_run(rs->s, run, false);
    }
    if (!rs->xbzrle || rs->first_pass) {
        put_page_run(rs, f, run);
        return 0;
    }
    for (uint64_t page = run->first; page < run->first + run->n; page++) {
        put_delta_page(rs, f, run->sb, page);
    }
    return 0;
}

static void send_zeroes(RAMSaveState *rs, QEMUFile *f, const RAMRun *run)
{
    if (rs->xbzrle) {
        cache_zero_run(rs, run);
    }
    put_zero_run(rs, f, run);
}

/* Parts a run where zero pages begin and end. */
static int send_sorted(RAMSaveState *rs, QEMUFile *f, const RAMRun *run)
{
    RAMRun part = {.sb = run->sb, .first = run->first};
    uint64_t page = run->first, end = run->first + run->n;
    bool zero = buffer_is_zero(page_host(run->sb, page), TARGET_PAGE_SIZE);
    int ret = 0;

    while (page < end && ret == 0) {
        bool next_zero = zero;

        do {
            page++;
            next_zero = page < end && buffer_is_zero(page_host(run->sb, page), TARGET_PAGE_SIZE);
        } while (page < end && next_zero == zero);
        part.n = (uint32_t)(page - part.first);
        if (zero) {
            send_zeroes(rs, f, &part);
        } else {
            ret = send_data(rs, f, &part);
        }
        part.first = page;
        zero = next_zero;
    }
    return ret;
}

static int send_run(RAMSaveState *rs, QEMUFile *f, const RAMRun *run)
{
    ZeroPageDetection detection = migrate_zero_page_detection(rs->s->settings);

    if (rs->mapped) {
        return ram_mapped_save_run(rs, f, run);
    }
    if (detection == ZERO_PAGE_DETECTION_NONE) {
        return send_data(rs, f, run);
    }
    if (rs->s->multifd && detection == ZERO_PAGE_DETECTION_MULTIFD) {
        rs->multifd_unsynced = true;
        return multifd_send_run(rs->s, run, true);
    }
    if (run->untouched) {
        send_zeroes(rs, f, run);
        return 0;
    }
    return send_sorted(rs, f, run);
}

/* --- barriers --- */

/*
 * The walk has come to the end of the list: what follows may be pages that were sent before, on
 * another channel.
 */
static int end_round(RAMSaveState *rs, QEMUFile *f)
{
    MigrationState *s = rs->s;
    int ret;

    if (rs->mapped) {
        return ram_mapped_save_barrier(rs, f);
    }
    if (!rs->multifd_unsynced || s->settings->compat.multifd_flush_after_each_section) {
        return 0;
    }
    rs->multifd_unsynced = false;
    ret = multifd_send_sync(s);
    if (ret < 0) {
        return ret;
    }
    /* until the destination has read it no channel goes on, nor does this thread when all are busy */
    qemu_put_be64(f, RAM_SAVE_FLAG_MULTIFD_FLUSH);
    return qemu_fflush(f);
}

static int end_section(RAMSaveState *rs, QEMUFile *f)
{
    MigrationState *s = rs->s;

    if (s->multifd && s->settings->compat.multifd_flush_after_each_section) {
        int ret = multifd_send_sync(s);

        if (ret < 0) {
            return ret;
        }
        rs->multifd_unsynced = false;
    }
    qemu_put_be64(f, RAM_SAVE_FLAG_EOS);
    /* nothing refers to guest memory outside of a section */
    return qemu_fflush(f);
}

/* --- sections --- */

static int put_block_list(RAMSaveState *rs, QEMUFile *f)
{
    g_autoptr(FlatView) view = NULL;
    uint64_t bytes = 0;
    int ret = 0;

    if (migrate_ignore_shared(rs->s->settings)) {
        view = address_space_get_flatview(get_address_space_memory());
    }
    for (unsigned i = 0; i < rs->blocks->len; i++) {
        bytes += g_array_index(rs->blocks, RAMSaveBlock, i).pages << TARGET_PAGE_BITS;
    }
    qemu_put_be64(f, bytes | RAM_SAVE_FLAG_MEM_SIZE);
    for (unsigned i = 0; i < rs->blocks->len && ret == 0; i++) {
        RAMSaveBlock *sb = &g_array_index(rs->blocks, RAMSaveBlock, i);

        qemu_put_counted_string(f, sb->block->idstr);
        qemu_put_be64(f, sb->pages << TARGET_PAGE_BITS);
        if (view) {
            qemu_put_be64(f, flatview_block_address(view, sb->block));
        }
        if (rs->mapped) {
            ret = ram_mapped_save_header(f, sb);
        }
    }
    return ret;
}

/*
 * What a failed section says: the file's error, or that another thread has failed or a client has
 * cancelled.
 */
static int section_failed(QEMUFile *f, int ret, GError **errp)
{
    int file_ret = qemu_file_get_error_obj(f, errp);

    if (file_ret < 0) {
        return file_ret;
    }
    error_setg_errno(errp, -ret, "Sending guest memory was stopped");
    return ret;
}

int ram_save_setup(RAMSaveState *rs, QEMUFile *f, GError **errp)
{
    MigrationState *s = rs->s;
    int ret;

    if (migrate_xbzrle(s->settings)) {
        rs->xbzrle = xbzrle_cache_new(migrate_xbzrle_cache_size(), errp);
        if (!rs->xbzrle) {
            return -ENOMEM;
        }
        stat64_set(&s->counters.xbzrle_cache_size, xbzrle_cache_bytes(rs->xbzrle));
    }
    if (migrate_mapped_ram(s->settings) && !ram_mapped_save_begin(rs, f, errp)) {
        return -EINVAL;
    }
    ram_sync_dirty_log(rs, false);
    ret = put_block_list(rs, f);
    if (ret == 0 && s->multifd) {
        rs->multifd_unsynced = true;
        ret = end_round(rs, f);
    }
    if (ret == 0) {
        ret = end_section(rs, f);
    }
    return ret < 0 ? section_failed(f, ret, errp) : 0;
}

/* A run is a part of what the bandwidth allows in one window. */
static uint32_t run_limit(const RAMSaveState *rs, bool limited)
{
    uint64_t pages = rs->s->rate.window_limit / 8 >> TARGET_PAGE_BITS;

    return limited ? (uint32_t)CLAMP(pages, 1, RUN_MAX_PAGES) : RUN_MAX_PAGES;
}

/* 1: no page is dirty; 0: the bandwidth or the time is used up; -errno. INT64_MAX: no limits. */
static int send_pages(RAMSaveState *rs, QEMUFile *f, int64_t deadline_ns)
{
    bool limited = deadline_ns < INT64_MAX;
    unsigned runs = 0, pages = 0;
    int ret = 0;

    while (ret == 0 && rs->dirty_pages > 0) {
        RAMRun run;

        if (!ram_find_run(rs, run_limit(rs, limited), &run)) {
            ret = end_round(rs, f);
            continue;
        }
        ret = send_run(rs, f, &run);
        pages += run.n;
        if (++runs % CLOCK_RUNS == 0 || pages >= CLOCK_PAGES) {
            pages = 0;
            if (migration_should_stop(rs->s)) {
                return -ECANCELED;
            }
            if (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= deadline_ns) {
                return ret;
            }
        }
        if (limited && migration_rate_exceeded(rs->s)) {
            return ret;
        }
        if (qemu_file_get_error(f) < 0) {
            return qemu_file_get_error(f);
        }
    }
    return ret < 0 ? ret : 1;
}

static void note_left(RAMSaveState *rs)
{
    stat64_set(&rs->s->counters.remaining_bytes, rs->dirty_pages << TARGET_PAGE_BITS);
}

int ram_save_iterate(RAMSaveState *rs, QEMUFile *f, GError **errp)
{
    uint64_t before = qemu_file_transferred(f);
    int ret, end;

    if (rs->xbzrle) {
        xbzrle_cache_resize(rs->xbzrle, migrate_xbzrle_cache_size());
        stat64_set(&rs->s->counters.xbzrle_cache_size, xbzrle_cache_bytes(rs->xbzrle));
    }

    if (!ram_save_check_blocks(rs, errp)) {
        return -EINVAL;
    }
    ret = send_pages(rs, f, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + SLICE_NS);
    end = ret < 0 ? ret : end_section(rs, f);
    note_left(rs);
    stat64_add(&rs->s->counters.precopy_bytes, qemu_file_transferred(f) - before);
    return end < 0 ? section_failed(f, end, errp) : ret;
}

/* All pages, and a barrier behind the last of them; or the bitmaps that tell where they are. */
static int send_the_rest(RAMSaveState *rs, QEMUFile *f)
{
    int ret = send_pages(rs, f, INT64_MAX);

    if (ret >= 0) {
        ret = rs->mapped ? ram_mapped_save_bitmaps(rs, f) : end_round(rs, f);
    }
    return ret < 0 ? ret : end_section(rs, f);
}

int ram_save_complete(RAMSaveState *rs, QEMUFile *f, GError **errp)
{
    MigrationState *s = rs->s;
    uint64_t before = qemu_file_transferred(f);
    uint64_t since = (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int ret;

    if (!ram_save_check_blocks(rs, errp)) {
        return -EINVAL;
    }
    if (!rs->last_synced) {
        ram_sync_dirty_log(rs, true);
    }
    migration_end_phase(s, MIGRATION_PHASE_LAST_SYNC, &since);
    ret = send_the_rest(rs, f);
    migration_end_phase(s, MIGRATION_PHASE_LAST_PAGES, &since);
    note_left(rs);
    stat64_add(&s->counters.downtime_bytes, qemu_file_transferred(f) - before);
    return ret < 0 ? section_failed(f, ret, errp) : 0;
}
