/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds the source's extents, a bounded number ahead of the copying. So copying starts with the
 * first one, and the cost grows with the number of extents, not with the size of the disk.
 *
 * The scan clears the dirty bits of a range before it asks for the range's status. A write after
 * that sets its bit again, and is copied once more when the copying has passed it.
 */
#include "block/copy/copy.h"

#include "block/graph/graph.h"

bool copy_scan_done(const CopyEngine *s)
{
    return s->scan.issued >= s->size;
}

/* Appends to the ring; a run of the same kind grows the last item. */
static void scan_append(CopyScan *scan, int64_t bytes, CopyExtentKind kind)
{
    CopyExtent *last = &scan->items[(scan->head + scan->count - 1) % COPY_SCAN_ITEMS];

    if (scan->count && last->kind == kind) {
        last->bytes += bytes;
    } else {
        scan->items[(scan->head + scan->count) % COPY_SCAN_ITEMS] =
            (CopyExtent){.offset = scan->pos, .bytes = bytes, .kind = kind};
        scan->count++;
    }
    scan->pos += bytes;
}

/*
 * Clears the bits that the scan is going to cover. A granule that copying has already begun in
 * keeps its bit.
 */
static void clear_bits_ahead(CopyEngine *s)
{
    int64_t start = (s->scan.pos + s->granularity - 1) & ~((int64_t)s->granularity - 1);

    if (start < s->size && bdrv_get_dirty_count(s->dirty) > 0) {
        bdrv_reset_dirty_bitmap(s->dirty, start, s->size - start);
    }
}

/*
 * Small extents at pos: how far they are taken together. A question about each costs more than
 * reading the holes between them, so they are asked for ever more rarely while they last.
 */
static int64_t mixed_bytes(CopyScan *scan, int64_t left)
{
    scan->mixed_bytes = CLAMP(scan->mixed_bytes * 2, COPY_MIXED_UNIT, COPY_MIXED_MAX);
    return MIN(left, scan->mixed_bytes - (scan->pos & (scan->mixed_bytes - 1)));
}

static void coroutine_fn scan_co_step(CopyEngine *s)
{
    CopyScan *scan = &s->scan;
    BdrvBlockStatus st;
    CopyExtentKind kind = COPY_EXTENT_DATA;
    int64_t left = s->size - scan->pos;
    int ret;

    clear_bits_ahead(s);
    ret = copy_co_source_status(s, s->base, scan->pos, left, &st);
    if (ret < 0 || st.pnum <= 0) {
        /*
         * Without knowledge it is copied; reading it will show what is wrong, under the error
         * policy.
         */
        scan_append(scan, MIN(left, COPY_MAX_REQUEST), COPY_EXTENT_DATA);
        return;
    }
    if (s->base && !(st.flags & BDRV_BLOCK_ALLOCATED)) {
        kind = COPY_EXTENT_SKIP;
    } else if (st.flags & BDRV_BLOCK_ZERO) {
        kind = COPY_EXTENT_ZERO;
    }
    st.pnum = MIN(st.pnum, left);
    if (st.pnum < COPY_MIXED_UNIT && st.pnum < left && !s->base) {
        scan_append(scan, mixed_bytes(scan, left), COPY_EXTENT_MIXED);
        return;
    }
    if (st.pnum > COPY_MIXED_UNIT) {
        scan->mixed_bytes = 0;
    }
    scan_append(scan, st.pnum, kind);
}

static void coroutine_fn scan_co_entry(void *opaque)
{
    CopyEngine *s = opaque;
    CopyScan *scan = &s->scan;

    while (scan->pos < s->size && scan->count < COPY_SCAN_ITEMS && copy_wish(s) == COPY_GO_ON) {
        scan_co_step(s);
        if (scan->count == 1) {
            copy_moved(s, 0);
        }
    }
    scan->running = false;
    s->in_flight--;
    copy_note_idle(s);
    qemu_co_queue_restart_all(&s->op_ended);
    copy_moved(s, 0);
    bdrv_drain_kick();
}

void copy_scan_kick(CopyEngine *s)
{
    CopyScan *scan = &s->scan;

    if (!scan->running && scan->pos < s->size && scan->count < COPY_SCAN_ITEMS / 2) {
        scan->running = true;
        s->in_flight++;
        qemu_coroutine_enter(qemu_coroutine_create(scan_co_entry, s));
    }
}

bool copy_scan_take(CopyEngine *s, int64_t max_bytes, CopyExtent *extent)
{
    CopyScan *scan = &s->scan;
    CopyExtent *head = &scan->items[scan->head];

    if (!scan->count) {
        return false;
    }
    *extent = *head;
    if (head->kind != COPY_EXTENT_ZERO && head->kind != COPY_EXTENT_SKIP &&
        head->bytes > max_bytes) {
        extent->bytes = max_bytes - (head->offset & (max_bytes - 1));
        extent->bytes = MIN(extent->bytes, head->bytes);
    } else if (head->kind == COPY_EXTENT_ZERO) {
        extent->bytes = MIN(head->bytes, BDRV_REQUEST_MAX_BYTES & ~((int64_t)s->granularity - 1));
    }
    head->offset += extent->bytes;
    head->bytes -= extent->bytes;
    if (!head->bytes) {
        scan->head = (scan->head + 1) % COPY_SCAN_ITEMS;
        scan->count--;
    }
    scan->issued = extent->offset + extent->bytes;
    return true;
}
