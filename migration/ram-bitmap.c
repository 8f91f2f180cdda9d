/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pages are left to send.
 *
 * A page's way: the guest writes it, and the dirty log marks it. A pass moves the mark into the
 * migration's own bitmap. The walk takes the bit away, and has the log forget the page, so that the
 * log reports the next write. Only then the page is read: a write after that is in the log again.
 *
 * In the first pass, pages that were never touched are zero without a look at them, until a pass over
 * the log says that they were written. They are found unit by unit, when the walk gets there and the
 * log has forgotten the unit. A log may begin with every bit set (KVM's can), and then tells nothing
 * of writes before that.
 */
#include "migration/ram.h"

#include <string.h>
#include "memory/dirty.h"
#include "memory/listener.h"
#include "memory/populated.h"
#include "util/page-bitmap.h"
#include "qapi/qapi-events-migration.h"
#include "util/bql.h"
#include "util/error.h"
#include "util/timer.h"

#define LOG_CLIENT DIRTY_MEMORY_MIGRATION

/* The shortest time over which the guest's rate of writing is worth saying. */
#define RATE_MIN_NS (50 * 1000 * 1000)
/* Largest exponent of a chunk of the log, pages: 4 PiB. */
#define CLEAR_SHIFT_MAX 40
/* Largest exponent of a unit of the search for untouched pages: 256 MiB, a millisecond or so. */
#define LOOK_SHIFT_MAX 16

bool ram_block_is_ignored(const RAMBlock *block, const MigrationSettings *settings)
{
    const uint32_t want = RAM_SHARED | RAM_NAMED_FILE;

    return migrate_ignore_shared(settings) && (ram_block_flags(block) & want) == want;
}

static RAMSaveBlock *save_block(RAMSaveState *rs, unsigned i)
{
    return &g_array_index(rs->blocks, RAMSaveBlock, i);
}

static uint64_t unit_count(const RAMSaveState *rs, const RAMSaveBlock *sb)
{
    return (sb->pages >> rs->look_shift) + 1;
}

static uint64_t chunk_count(const RAMSaveState *rs, const RAMSaveBlock *sb)
{
    return (sb->pages >> rs->clear_shift) + 1;
}

/* --- begin and end --- */

/* Everything is dirty. */
static bool save_block_fill(RAMSaveState *rs, RAMSaveBlock *sb, GError **errp)
{
    sb->dirty = page_bitmap_try_new(sb->pages);
    sb->untouched = page_bitmap_try_new(sb->pages);
    sb->looked = page_bitmap_try_new(unit_count(rs, sb));
    sb->uncleared = page_bitmap_try_new(chunk_count(rs, sb));
    if (!sb->dirty || !sb->untouched || !sb->looked || !sb->uncleared) {
        error_setg(errp, "Not enough memory for the dirty bitmap of RAM block '%s'",
                   sb->block->idstr);
        return false;
    }
    page_bitmap_set(sb->dirty, 0, sb->pages);
    rs->dirty_pages += sb->pages;
    return true;
}

/* From here on every page is looked at. */
static void forget_untouched(RAMSaveBlock *sb)
{
    g_clear_pointer(&sb->untouched, g_free);
    g_clear_pointer(&sb->looked, g_free);
}

static void save_block_clear(gpointer data)
{
    RAMSaveBlock *sb = data;

    g_free(sb->dirty);
    forget_untouched(sb);
    g_free(sb->uncleared);
    g_free(sb->file_bitmap);
    ram_block_unref(sb->block);
}

static void take_blocks(RAMSaveState *rs, const MigrationSettings *settings)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();
    uint64_t total = 0;

    for (unsigned i = 0; i < list->n; i++) {
        RAMBlock *block = list->blocks[i];
        RAMSaveBlock sb = {.block = block};

        if (!ram_block_is_migratable(block)) {
            continue;
        }
        ram_block_ref(block);
        sb.pages = ram_block_used_length(block) >> TARGET_PAGE_BITS;
        sb.ignored = ram_block_is_ignored(block, settings);
        total += sb.ignored ? 0 : sb.pages << TARGET_PAGE_BITS;
        g_array_append_val(rs->blocks, sb);
    }
    stat64_set(&rs->s->counters.total_bytes, total);
}

RAMSaveState *ram_save_state_new(MigrationState *s, GError **errp)
{
    RAMSaveState *rs = g_new0(RAMSaveState, 1);
    bool locked = bql_locked();

    rs->s = s;
    rs->first_pass = true;
    rs->clear_shift = MIN(s->settings->compat.clear_bitmap_shift, CLEAR_SHIFT_MAX);
    rs->look_shift = MIN(rs->clear_shift, LOOK_SHIFT_MAX);
    rs->blocks = g_array_new(false, false, sizeof(RAMSaveBlock));
    g_array_set_clear_func(rs->blocks, save_block_clear);
    if (!locked) {
        bql_lock();
    }
    take_blocks(rs, s->settings);
    rs->logging = memory_global_dirty_log_start(1u << LOG_CLIENT, errp);
    if (!locked) {
        bql_unlock();
    }
    if (!rs->logging) {
        ram_save_state_free(rs);
        return NULL;
    }
    for (unsigned i = 0; i < rs->blocks->len; i++) {
        RAMSaveBlock *sb = save_block(rs, i);

        if (!sb->ignored && !save_block_fill(rs, sb, errp)) {
            ram_save_state_free(rs);
            return NULL;
        }
    }
    rs->last_sync_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    rs->converge.period_start_ns = rs->last_sync_ns;
    stat64_set(&s->counters.remaining_bytes, rs->dirty_pages << TARGET_PAGE_BITS);
    return rs;
}

void ram_save_state_free(RAMSaveState *rs)
{
    bool locked = bql_locked();

    if (!rs) {
        return;
    }
    auto_converge_end(&rs->converge, rs->s);
    if (rs->logging) {
        if (!locked) {
            bql_lock();
        }
        memory_global_dirty_log_stop(1u << LOG_CLIENT);
        if (!locked) {
            bql_unlock();
        }
    }
    mapped_io_free(rs->mapped);
    xbzrle_cache_free(rs->xbzrle);
    g_array_unref(rs->blocks);
    g_free(rs);
}

bool ram_save_check_blocks(RAMSaveState *rs, GError **errp)
{
    for (unsigned i = 0; i < rs->blocks->len; i++) {
        const RAMSaveBlock *sb = save_block(rs, i);

        if (ram_block_used_length(sb->block) >> TARGET_PAGE_BITS != sb->pages) {
            error_setg(errp, "RAM block '%s' was resized while it was being migrated",
                       sb->block->idstr);
            return false;
        }
    }
    return true;
}

/* --- passes --- */

static void end_first_pass(RAMSaveState *rs)
{
    rs->first_pass = false;
    for (unsigned i = 0; i < rs->blocks->len; i++) {
        forget_untouched(save_block(rs, i));
    }
}

/* Pages that were written come out of `untouched`; returns how many became dirty. */
static uint64_t sync_touched(RAMSaveBlock *sb)
{
    size_t words = page_bitmap_words(sb->pages);
    g_autofree uint64_t *written = page_bitmap_try_new(sb->pages);
    uint64_t fresh = 0;

    if (!written) {
        forget_untouched(sb);
        return ram_block_dirty_sync_and_clear(sb->block, LOG_CLIENT, sb->dirty, 0, sb->pages);
    }
    (void)ram_block_dirty_sync_and_clear(sb->block, LOG_CLIENT, written, 0, sb->pages);
    for (size_t i = 0; i < words; i++) {
        fresh += (uint64_t)__builtin_popcountll(written[i] & ~sb->dirty[i]);
        sb->dirty[i] |= written[i];
        sb->untouched[i] &= ~written[i];
    }
    return fresh;
}

static void note_rate(RAMSaveState *rs, uint64_t fresh_pages)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME), ns = now - rs->last_sync_ns;

    rs->fresh_pages += fresh_pages;
    auto_converge_pass(&rs->converge, rs->s, now, fresh_pages << TARGET_PAGE_BITS);
    if (ns < RATE_MIN_NS) {
        return;
    }
    stat64_set(&rs->s->counters.dirty_pages_rate,
               (uint64_t)((double)rs->fresh_pages * NANOSECONDS_PER_SECOND / (double)ns));
    rs->fresh_pages = 0;
    rs->last_sync_ns = now;
}

void ram_sync_dirty_log(RAMSaveState *rs, bool last)
{
    MigrationState *s = rs->s;
    uint64_t fresh = 0;

    if (!rs->dirty_pages) {
        end_first_pass(rs);
    }
    rs->last_synced = last;
    stat64_add(&s->counters.dirty_sync_count, 1);
    memory_global_dirty_log_sync(last);
    for (unsigned i = 0; i < rs->blocks->len; i++) {
        RAMSaveBlock *sb = save_block(rs, i);

        if (sb->ignored) {
            continue;
        }
        fresh += sb->untouched ? sync_touched(sb)
                               : ram_block_dirty_sync_and_clear(sb->block, LOG_CLIENT, sb->dirty, 0,
                                                                sb->pages);
        if (last) {
            /* the guest writes no more: nothing to forget */
            page_bitmap_clear(sb->uncleared, 0, chunk_count(rs, sb));
        } else {
            page_bitmap_set(sb->uncleared, 0, chunk_count(rs, sb));
        }
    }
    rs->dirty_pages += fresh;
    stat64_set(&s->counters.remaining_bytes, rs->dirty_pages << TARGET_PAGE_BITS);
    note_rate(rs, fresh);
    if (rs->xbzrle) {
        xbzrle_cache_next_pass(rs->xbzrle, s);
    }
    if (migrate_events(s->settings)) {
        qapi_event_send_migration_pass((int64_t)stat64_get(&s->counters.dirty_sync_count));
    }
}

/* --- the walk --- */

/* The log forgets what it has told about [first, end), in whole chunks. */
static void clear_log(RAMSaveState *rs, RAMSaveBlock *sb, uint64_t first, uint64_t end)
{
    uint64_t chunk = first >> rs->clear_shift, last = (end - 1) >> rs->clear_shift;

    for (; chunk <= last; chunk++) {
        uint64_t from = chunk << rs->clear_shift;
        uint64_t n = MIN(sb->pages - from, UINT64_C(1) << rs->clear_shift);

        if (page_bitmap_test(sb->uncleared, chunk)) {
            page_bitmap_clear(sb->uncleared, chunk, chunk + 1);
            ram_block_clear_log(sb->block, from << TARGET_PAGE_BITS, n << TARGET_PAGE_BITS);
        }
    }
}

/*
 * Finds the untouched pages of the unit of `page`, once. The log forgets the unit first: a page that
 * is written after the look is in the log.
 */
static void look_for_untouched(RAMSaveState *rs, RAMSaveBlock *sb, uint64_t page)
{
    uint64_t unit = page >> rs->look_shift, first = unit << rs->look_shift;
    uint64_t n = MIN(sb->pages - first, UINT64_C(1) << rs->look_shift);
    g_autofree uint64_t *map = NULL;

    if (!sb->untouched || page_bitmap_test(sb->looked, unit)) {
        return;
    }
    map = page_bitmap_try_new(n);
    clear_log(rs, sb, first, first + n);
    if (!map ||
        !ram_block_populated(sb->block, first << TARGET_PAGE_BITS, n << TARGET_PAGE_BITS, map)) {
        forget_untouched(sb);
        return;
    }
    page_bitmap_set(sb->looked, unit, unit + 1);
    for (uint64_t at = 0, end; at < n; at = end) {
        uint64_t from = page_bitmap_find(map, at, n, false);

        end = page_bitmap_find(map, from, n, true);
        page_bitmap_set(sb->untouched, first + from, first + end);
    }
}

static void take_run(RAMSaveState *rs, RAMSaveBlock *sb, uint64_t first, uint32_t max, RAMRun *run)
{
    uint64_t end = first + MIN(sb->pages - first, MAX(max, 1));

    end = page_bitmap_find(sb->dirty, first, end, false);
    look_for_untouched(rs, sb, first);
    if (sb->looked) {
        /* what lies behind the unit was not looked at yet */
        end = MIN(end, ((first >> rs->look_shift) + 1) << rs->look_shift);
    }
    run->untouched = sb->untouched && page_bitmap_test(sb->untouched, first);
    if (sb->untouched) {
        end = page_bitmap_find(sb->untouched, first, end, !run->untouched);
    }
    run->sb = sb;
    run->first = first;
    run->n = (uint32_t)(end - first);
    clear_log(rs, sb, first, end);
    page_bitmap_clear(sb->dirty, first, end);
    rs->dirty_pages -= run->n;
    rs->cur_page = end;
}

bool ram_find_run(RAMSaveState *rs, uint32_t max, RAMRun *run)
{
    for (; rs->cur_block < rs->blocks->len; rs->cur_block++, rs->cur_page = 0) {
        RAMSaveBlock *sb = save_block(rs, rs->cur_block);
        uint64_t first;

        if (sb->ignored) {
            continue;
        }
        first = page_bitmap_find(sb->dirty, rs->cur_page, sb->pages, true);
        if (first < sb->pages) {
            take_run(rs, sb, first, max, run);
            return true;
        }
    }
    rs->cur_block = 0;
    rs->cur_page = 0;
    end_first_pass(rs);
    return false;
}
