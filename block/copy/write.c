/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How data and zeroes reach the target of a copy.
 *
 * Zeroes are cheapest first: nothing where the target reads as zeroes already, a write-zeroes request
 * (which may deallocate), data. The engine looks through data that was read in blocks of zero_unit,
 * the unit in which the target allocates. So a hole of the source stays a hole although it was read
 * with its neighbours.
 */
#include "block/copy/copy.h"

#include <errno.h>
#include "block/block_int.h"

/* Zeroes shorter than this are written as data where the target holds data already, bytes. */
#define PUNCH_MIN_BYTES (16 << 10)

/* Zeroes that a backing file could show through must be there in so many words. */
static bool status_is_zero(const CopyEngine *s, const BdrvBlockStatus *st)
{
    int zero = BDRV_BLOCK_ZERO | (s->target_plain ? 0 : BDRV_BLOCK_ALLOCATED);

    return (st->flags & zero) == zero;
}

/*
 * What the target holds from offset on: ZERO or DATA, where the map does not know it by asking the
 * target. *pnum: how far (at most bytes) this is so.
 */
static CopyTargetState coroutine_fn co_target_state(CopyEngine *s, int64_t offset, int64_t bytes,
                                                    int64_t *pnum)
{
    CopyTargetState state = copy_map_get(&s->map, offset, bytes, pnum);
    BdrvBlockStatus st;

    if (state != COPY_TARGET_UNKNOWN) {
        return state;
    }
    if (bdrv_co_block_status_above(s->target_bs, NULL, offset, *pnum, &st) < 0 || st.pnum <= 0) {
        return COPY_TARGET_DATA;
    }
    *pnum = MIN(*pnum, st.pnum);
    if (!status_is_zero(s, &st)) {
        return COPY_TARGET_DATA;
    }
    copy_map_set_zero(&s->map, offset, *pnum);
    return COPY_TARGET_ZERO;
}

bool coroutine_fn copy_co_target_is_zero(CopyEngine *s, int64_t offset, int64_t bytes)
{
    while (bytes > 0) {
        int64_t run;

        if (co_target_state(s, offset, bytes, &run) != COPY_TARGET_ZERO) {
            return false;
        }
        offset += run;
        bytes -= run;
    }
    return true;
}

static int coroutine_fn co_punch(CopyEngine *s, int64_t offset, int64_t bytes)
{
    while (bytes > 0) {
        int64_t n = MIN(bytes, BDRV_REQUEST_MAX_BYTES & ~((int64_t)s->granularity - 1));
        int ret;

        if (copy_wish(s) == COPY_CANCEL) {
            return -ECANCELED; /* the target was given up already, and may hang again */
        }
        ret = blk_co_pwrite_zeroes(s->target, offset, n,
                                   s->unmap && s->target_plain ? BDRV_REQ_MAY_UNMAP : 0);
        if (ret < 0) {
            return ret;
        }
        copy_map_set_zero(&s->map, offset, n);
        offset += n;
        bytes -= n;
    }
    return 0;
}

int coroutine_fn copy_co_zero(CopyEngine *s, int64_t offset, int64_t bytes)
{
    while (bytes > 0) {
        int64_t run;
        int ret = 0;

        if (copy_wish(s) == COPY_CANCEL) {
            return -ECANCELED;
        }
        if (co_target_state(s, offset, bytes, &run) != COPY_TARGET_ZERO) {
            ret = co_punch(s, offset, run);
        }
        if (ret < 0) {
            return ret;
        }
        offset += run;
        bytes -= run;
    }
    return 0;
}

/* What was read, and where it goes. */
typedef struct ReadData {
    CopyEngine *s;
    QEMUIOVector *qiov;
    int64_t offset; /* of its first byte */
    int64_t min;    /* zeroes in a shorter run are data */
} ReadData;

/* Whether the block at `at` (from the start of the data, before end) is zero; *next: where it ends. */
static bool block_is_zero(const ReadData *r, int64_t at, int64_t end, int64_t *next)
{
    int64_t unit = r->s->zero_unit;

    *next = MIN(end, at + unit - ((r->offset + at) & (unit - 1)));
    return qemu_iovec_is_zero(r->qiov, at, *next - at);
}

/* Where the zeroes that begin at `at` end: `at` when there are none. */
static int64_t zeroes_end(const ReadData *r, int64_t at, int64_t end)
{
    int64_t next;

    while (at < end && block_is_zero(r, at, end, &next)) {
        at = next;
    }
    return at;
}

/* The end of the run that begins at `at`; short runs of zeroes in data belong to it. */
static int64_t run_end(const ReadData *r, int64_t at, int64_t end, bool *zero)
{
    int64_t zeroes = zeroes_end(r, at, end);

    *zero = zeroes - at >= r->min || zeroes == end;
    if (*zero) {
        return zeroes;
    }
    for (at = zeroes; at < end; at = zeroes) {
        (void)block_is_zero(r, at, end, &at); /* data, as found above */
        zeroes = zeroes_end(r, at, end);
        if (zeroes - at >= r->min) {
            return at;
        }
    }
    return end;
}

static int coroutine_fn co_write_data(ReadData *r, int64_t from, int64_t to)
{
    CopyEngine *s = r->s;
    QEMUIOVector part;
    int ret;

    copy_map_set_data(&s->map, r->offset + from, to - from);
    if (from == 0 && to == (int64_t)r->qiov->size) {
        return blk_co_pwritev(s->target, r->offset, to, r->qiov, 0);
    }
    qemu_iovec_init_slice(&part, r->qiov, from, to - from);
    ret = blk_co_pwritev(s->target, r->offset + from, to - from, &part, 0);
    qemu_iovec_destroy(&part);
    return ret;
}

/* [from, to) of it, over a part of the target that is all in one state. */
static int coroutine_fn co_write_runs(ReadData *r, int64_t from, int64_t to, CopyTargetState state)
{
    int ret = 0;

    r->min = state == COPY_TARGET_ZERO ? r->s->zero_run : MAX(r->s->zero_run, PUNCH_MIN_BYTES);
    while (ret == 0 && from < to) {
        bool zero;
        int64_t end = run_end(r, from, to, &zero);

        if (copy_wish(r->s) == COPY_CANCEL) {
            return -ECANCELED;
        }
        if (!zero) {
            ret = co_write_data(r, from, end);
        } else if (state != COPY_TARGET_ZERO) {
            ret = co_punch(r->s, r->offset + from, end - from);
        }
        from = end;
    }
    return ret;
}

int coroutine_fn copy_co_write_read(CopyEngine *s, int64_t offset, QEMUIOVector *qiov)
{
    ReadData r = {.s = s, .qiov = qiov, .offset = offset, .min = s->zero_run};
    int64_t bytes = (int64_t)qiov->size, done = 0;
    bool zero;

    if (run_end(&r, 0, bytes, &zero) == bytes && !zero) {
        return co_write_runs(&r, 0, bytes, COPY_TARGET_ZERO); /* data all through */
    }
    while (done < bytes) {
        int64_t run;
        CopyTargetState state = co_target_state(s, offset + done, bytes - done, &run);
        int ret = co_write_runs(&r, done, done + run, state);

        if (ret < 0) {
            return ret;
        }
        done += run;
    }
    return 0;
}
