/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The blkdebug driver: requests pass through to `image` unless an armed rule stops them.
 *
 * An injected ECONNRESET also drops the connection of the node below (bdrv_cancel_in_flight), so
 * that a broken link can be tried with any server.
 */
#include "block/debug/blkdebug.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "util/error.h"
#include "util/int-math.h"

/* A breakpoint waiting for its event, or a coroutine that hit one. */
typedef struct Breakpoint {
    char *tag;
    BlkdebugEvent event;
    Coroutine *suspended; /* NULL: not hit yet */
    LIST_ENTRY(Breakpoint) next;
} Breakpoint;

/* What the options can claim in place of the image's limits; bytes. */
enum {
    CLAIM_ALIGN,
    CLAIM_TRANSFER,
    CLAIM_ZERO_UNIT,
    CLAIM_ZERO_MOST,
    CLAIM_DISCARD_UNIT,
    CLAIM_DISCARD_MOST,
    CLAIM_COUNT,
};

typedef struct BlkdebugNode {
    BlkdebugRules rules;
    LIST_HEAD(, Breakpoint) breakpoints;
    CoQueue changed;             /* waits for a breakpoint to be hit or to go */
    int64_t claims[CLAIM_COUNT]; /* 0: as the image */
    uint64_t take_perms, unshare_perms;
} BlkdebugNode;

/* --- open --- */

/* How an option is called, and the claim that it is a multiple of; where that is 0, of align. */
static const struct {
    const char *option;
    int unit;
} claim_rules[CLAIM_COUNT] = {
    [CLAIM_ALIGN] = {"align", CLAIM_ALIGN},
    [CLAIM_TRANSFER] = {"max-transfer", CLAIM_ALIGN},
    [CLAIM_ZERO_UNIT] = {"opt-write-zero", CLAIM_ALIGN},
    [CLAIM_ZERO_MOST] = {"max-write-zero", CLAIM_ZERO_UNIT},
    [CLAIM_DISCARD_UNIT] = {"opt-discard", CLAIM_ALIGN},
    [CLAIM_DISCARD_MOST] = {"max-discard", CLAIM_DISCARD_UNIT},
};

static bool claim_is_possible(const int64_t *claims, int i)
{
    int64_t unit = claims[claim_rules[i].unit];

    if (unit == 0) {
        unit = MAX(claims[CLAIM_ALIGN], 1);
    }
    return claims[i] >= 0 && claims[i] <= INT32_MAX && claims[i] % unit == 0;
}

static bool take_claims(BlkdebugNode *s, const BlockdevOptionsBlkdebug *o, GError **errp)
{
    int64_t *claims = s->claims;

    /* The decoder leaves 0 where an option is absent. */
    claims[CLAIM_ALIGN] = o->align;
    claims[CLAIM_TRANSFER] = o->max_transfer;
    claims[CLAIM_ZERO_UNIT] = o->opt_write_zero;
    claims[CLAIM_ZERO_MOST] = o->max_write_zero;
    claims[CLAIM_DISCARD_UNIT] = o->opt_discard;
    claims[CLAIM_DISCARD_MOST] = o->max_discard;
    for (int i = 0; i < CLAIM_COUNT; i++) {
        bool power = i != CLAIM_ALIGN || claims[i] == 0 || is_power_of_2(claims[i]);

        if (!power || !claim_is_possible(claims, i)) {
            error_setg(errp, "Cannot meet constraints with %s %" PRId64, claim_rules[i].option,
                       claims[i]);
            return false;
        }
    }
    return true;
}

static uint64_t perm_mask(const BlockPermissionList *list)
{
    uint64_t perm = 0;

    for (; list; list = list->next) {
        switch (list->value) {
        case BLOCK_PERMISSION_CONSISTENT_READ:
            perm |= BLK_PERM_CONSISTENT_READ;
            break;
        case BLOCK_PERMISSION_WRITE:
            perm |= BLK_PERM_WRITE;
            break;
        case BLOCK_PERMISSION_WRITE_UNCHANGED:
            perm |= BLK_PERM_WRITE_UNCHANGED;
            break;
        case BLOCK_PERMISSION_RESIZE:
            perm |= BLK_PERM_RESIZE;
            break;
        default:
            break;
        }
    }
    return perm;
}

static bool take_rules(BlkdebugNode *s, const BlockdevOptionsBlkdebug *o, GError **errp)
{
    BlkdebugInjectErrorOptionsList *error;
    BlkdebugSetStateOptionsList *state;

    if (o->config && !blkdebug_rules_read_file(&s->rules, o->config, errp)) {
        return false;
    }
    QAPI_LIST_FOREACH(error, o->inject_error) {
        if (!blkdebug_rules_add_error(&s->rules, error->value, errp)) {
            return false;
        }
    }
    QAPI_LIST_FOREACH(state, o->set_state) {
        if (!blkdebug_rules_add_state(&s->rules, state->value, errp)) {
            return false;
        }
    }
    blkdebug_rules_event(&s->rules, BLKDBG_NONE);
    return true;
}

static bool coroutine_fn faulty_co_open(BlockDriverState *bs, const BlockdevOptions *opts,
                                        int flags, GError **errp)
{
    const BlockdevOptionsBlkdebug *o = &opts->u.blkdebug;
    BlkdebugNode *s = bs->opaque;

    LIST_INIT(&s->breakpoints);
    qemu_co_queue_init(&s->changed);
    blkdebug_rules_init(&s->rules);
    s->take_perms = perm_mask(o->take_child_perms);
    s->unshare_perms = perm_mask(o->unshare_child_perms);
    if (!take_claims(s, o, errp) || !take_rules(s, o, errp) ||
        !bdrv_co_open_child(bs, o->image, "image", BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY,
                            errp)) {
        blkdebug_rules_clear(&s->rules);
        return false;
    }
    bdrv_promise_as_below(bs, bs->file->bs);
    return true;
}

static void breakpoint_free(Breakpoint *bp)
{
    LIST_REMOVE(bp, next);
    if (bp->suspended) {
        aio_co_wake(bp->suspended);
    }
    g_free(bp->tag);
    g_free(bp);
}

static void coroutine_fn faulty_co_close(BlockDriverState *bs)
{
    BlkdebugNode *s = bs->opaque;
    Breakpoint *bp, *next;

    LIST_FOREACH_SAFE(bp, &s->breakpoints, next, next) {
        breakpoint_free(bp);
    }
    blkdebug_rules_clear(&s->rules);
}

static void faulty_child_perm(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                              uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    const BlkdebugNode *s = bs->opaque;

    *nperm = perm | s->take_perms;
    *nshared = shared & ~s->unshare_perms;
}

/* --- requests --- */

/* 0, or the error that an armed rule has for this request, after its delay. */
static int coroutine_fn apply_rules(BlockDriverState *bs, BlkdebugIOType type, int64_t offset,
                                    int64_t bytes)
{
    BlkdebugNode *s = bs->opaque;
    const BlkdebugErrorRule *rule = blkdebug_rules_match(&s->rules, type, offset, bytes);
    int error;
    int64_t delay_ns;

    if (!rule) {
        return 0;
    }
    error = rule->error;
    delay_ns = rule->delay_ns;
    if (delay_ns) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, delay_ns);
    } else if (!rule->immediately) {
        qemu_co_yield_to_loop(); /* as a real device, which never fails before it was asked */
    }
    if (error == ECONNRESET && BDRV_OP(bs->file->bs->drv, protocol, bdrv_cancel_in_flight)) {
        bs->file->bs->drv->protocol->bdrv_cancel_in_flight(bs->file->bs);
    }
    return -error;
}

static int coroutine_fn faulty_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         QEMUIOVector *qiov, size_t qiov_offset,
                                         BdrvRequestFlags flags)
{
    int ret = apply_rules(bs, BLKDEBUG_IO_TYPE_READ, offset, bytes);

    return ret ? ret : bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn faulty_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          QEMUIOVector *qiov, size_t qiov_offset,
                                          BdrvRequestFlags flags)
{
    int ret = apply_rules(bs, BLKDEBUG_IO_TYPE_WRITE, offset, bytes);

    return ret ? ret : bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

/* Pieces too small for the limits that the options claim are left to be written as data. */
static bool too_small(const BlockDriverState *bs, int64_t bytes, int64_t optimal)
{
    return bytes < MAX((int64_t)bs->bl.request_alignment, optimal);
}

static int coroutine_fn faulty_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                BdrvRequestFlags flags)
{
    BlkdebugNode *s = bs->opaque;
    int ret;

    if (too_small(bs, bytes, s->claims[CLAIM_ZERO_UNIT])) {
        return -ENOTSUP;
    }
    ret = apply_rules(bs, BLKDEBUG_IO_TYPE_WRITE_ZEROES, offset, bytes);
    return ret ? ret : bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn faulty_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BlkdebugNode *s = bs->opaque;
    int ret;

    if (too_small(bs, bytes, s->claims[CLAIM_DISCARD_UNIT])) {
        return -ENOTSUP;
    }
    ret = apply_rules(bs, BLKDEBUG_IO_TYPE_DISCARD, offset, bytes);
    return ret ? ret : bdrv_co_pdiscard(bs->file, offset, bytes);
}

static int coroutine_fn faulty_co_flush(BlockDriverState *bs)
{
    return apply_rules(bs, BLKDEBUG_IO_TYPE_FLUSH, 0, 0);
}

static int coroutine_fn faulty_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               BdrvBlockStatus *status)
{
    int ret = apply_rules(bs, BLKDEBUG_IO_TYPE_BLOCK_STATUS, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    status->flags = BDRV_BLOCK_RAW;
    status->pnum = bytes;
    status->map = offset;
    status->file = bs->file->bs;
    return 0;
}

static void faulty_refresh_limits(BlockDriverState *bs)
{
    const BlkdebugNode *s = bs->opaque;
    int64_t *const wide[CLAIM_COUNT] = {
        [CLAIM_TRANSFER] = &bs->bl.max_transfer,
        [CLAIM_ZERO_UNIT] = &bs->bl.pwrite_zeroes_alignment,
        [CLAIM_ZERO_MOST] = &bs->bl.max_pwrite_zeroes,
        [CLAIM_DISCARD_UNIT] = &bs->bl.pdiscard_alignment,
        [CLAIM_DISCARD_MOST] = &bs->bl.max_pdiscard,
    };

    for (int i = 0; i < CLAIM_COUNT; i++) {
        if (wide[i] && s->claims[i]) {
            *wide[i] = s->claims[i];
        }
    }
    if (s->claims[CLAIM_ALIGN]) {
        bs->bl.request_alignment = s->claims[CLAIM_ALIGN];
    }
}

/* --- events and breakpoints --- */

static void coroutine_fn faulty_co_debug_event(BlockDriverState *bs, BlkdebugEvent event)
{
    BlkdebugNode *s = bs->opaque;
    Breakpoint *bp;

    blkdebug_rules_event(&s->rules, event);
    LIST_FOREACH(bp, &s->breakpoints, next) {
        if (bp->event == event && !bp->suspended) {
            bp->suspended = qemu_coroutine_self();
            printf("blkdebug: Suspended request '%s'\n", bp->tag);
            fflush(stdout);
            qemu_co_queue_restart_all(&s->changed);
            qemu_coroutine_yield();
            return;
        }
    }
}

static Breakpoint *find_breakpoint(BlkdebugNode *s, const char *tag)
{
    Breakpoint *bp;

    LIST_FOREACH(bp, &s->breakpoints, next) {
        if (!strcmp(bp->tag, tag)) {
            return bp;
        }
    }
    return NULL;
}

static int faulty_breakpoint(BlockDriverState *bs, const char *event, const char *tag)
{
    BlkdebugNode *s = bs->opaque;
    BlkdebugEvent parsed;
    Breakpoint *bp;

    if (!BlkdebugEvent_parse(event, &parsed, NULL)) {
        return -ENOENT;
    }
    bp = g_new0(Breakpoint, 1);
    bp->tag = g_strdup(tag);
    bp->event = parsed;
    LIST_INSERT_HEAD(&s->breakpoints, bp, next);
    return 0;
}

static void breakpoint_remove(BlkdebugNode *s, Breakpoint *bp)
{
    if (bp->suspended) {
        printf("blkdebug: Resuming request '%s'\n", bp->tag);
        fflush(stdout);
    }
    breakpoint_free(bp);
    qemu_co_queue_restart_all(&s->changed);
}

/* Takes the breakpoint away and lets go of what it stopped. */
static int faulty_resume(BlockDriverState *bs, const char *tag)
{
    Breakpoint *bp = find_breakpoint(bs->opaque, tag);

    if (!bp || !bp->suspended) {
        return -ENOENT;
    }
    breakpoint_remove(bs->opaque, bp);
    return 0;
}

static int faulty_remove_breakpoint(BlockDriverState *bs, const char *tag)
{
    Breakpoint *bp;
    int ret = -ENOENT;

    while ((bp = find_breakpoint(bs->opaque, tag))) {
        breakpoint_remove(bs->opaque, bp);
        ret = 0;
    }
    return ret;
}

static int coroutine_fn faulty_co_debug_wait(BlockDriverState *bs, const char *tag)
{
    BlkdebugNode *s = bs->opaque;
    Breakpoint *bp;

    while ((bp = find_breakpoint(s, tag)) && !bp->suspended) {
        qemu_co_queue_wait(&s->changed, NULL);
    }
    return bp ? 0 : -ENOENT;
}

static const BlockDebugOps blkdebug_ops = {
    .bdrv_co_debug_event = faulty_co_debug_event,
    .bdrv_debug_breakpoint = faulty_breakpoint,
    .bdrv_debug_remove_breakpoint = faulty_remove_breakpoint,
    .bdrv_debug_resume = faulty_resume,
    .bdrv_co_debug_wait = faulty_co_debug_wait,
};

const BlockDriver bdrv_blkdebug = {
    .format_name = "blkdebug",
    .driver = BLOCKDEV_DRIVER_BLKDEBUG,
    .instance_size = sizeof(BlkdebugNode),
    .is_filter = true,
    .debug = &blkdebug_ops,
    .bdrv_co_open = faulty_co_open,
    .bdrv_co_close = faulty_co_close,
    .bdrv_child_perm = faulty_child_perm,
    .bdrv_co_preadv = faulty_co_preadv,
    .bdrv_co_pwritev = faulty_co_pwritev,
    .bdrv_co_pwrite_zeroes = faulty_co_pwrite_zeroes,
    .bdrv_co_pdiscard = faulty_co_pdiscard,
    .bdrv_co_flush_to_disk = faulty_co_flush,
    .bdrv_co_block_status = faulty_co_block_status,
    .bdrv_refresh_limits = faulty_refresh_limits,
};
