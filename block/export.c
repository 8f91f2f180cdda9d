/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exports: the generic life cycle. A driver's references keep an export alive after its user has
 * let go of it.
 */
#include "block/export.h"
#include <string.h>
#include "block/graph/activate.h"
#include "qapi/qapi-events.h"
#include "util/co-lock.h"
#include "util/error.h"
#include "util/id.h"
#include "util/iothread.h"

/* Main thread: every export that is not deleted yet. */
static TAILQ_HEAD(BlockExportList,
                  BlockExport) block_exports = TAILQ_HEAD_INITIALIZER(block_exports);
/* Woken whenever an export is deleted. */
static CoQueue export_deleted = {TAILQ_HEAD_INITIALIZER(export_deleted.waiters)};

static const BlockExportDriver *export_drivers[BLOCK_EXPORT_TYPE__MAX];

void blk_exp_register_driver(const BlockExportDriver *drv)
{
    export_drivers[drv->type] = drv;
}

BlockExport *blk_exp_find(const char *id)
{
    BlockExport *exp;

    TAILQ_FOREACH(exp, &block_exports, next) {
        if (!strcmp(exp->id, id)) {
            return exp;
        }
    }
    return NULL;
}

BlockExport *blk_exp_next(BlockExport *exp)
{
    return exp ? TAILQ_NEXT(exp, next) : TAILQ_FIRST(&block_exports);
}

/* --- creation --- */

/* The iothread an export asks for. True with *ctx NULL: none. */
static bool blk_exp_iothread(const BlockExportOptions *opts, AioContext **ctx, GError **errp)
{
    IOThread *iothread;

    *ctx = NULL;
    if (!opts->iothread) {
        return true;
    }
    iothread = iothread_by_id(opts->iothread);
    if (!iothread) {
        error_setg(errp, "iothread \"%s\" not found", opts->iothread);
        return false;
    }
    *ctx = iothread_get_aio_context(iothread);
    return true;
}

/* Until the driver describes the export as its clients know it. */
static char *new_export_get_desc(void *opaque)
{
    return g_strdup_printf("export '%s'", (const char *)opaque);
}

static const BlockDevOps new_export_ops = {.get_desc = new_export_get_desc};

/* A BlockBackend on the node, in the wished context where that is possible. */
static BlockBackend *coroutine_fn blk_exp_co_open_backend(const BlockExportOptions *opts,
                                                          BlockDriverState *bs, GError **errp)
{
    bool writable = opts->has_writable && opts->writable;
    bool allow_inactive = opts->has_allow_inactive && opts->allow_inactive;
    bool fixed = opts->has_fixed_iothread && opts->fixed_iothread;
    g_autoptr(GError) refusal = NULL;
    AioContext *ctx;
    BlockBackend *blk;

    if (!blk_exp_iothread(opts, &ctx, errp)) {
        return NULL;
    }
    if (writable && bdrv_is_read_only(bs)) {
        error_setg(errp, "Cannot export read-only node '%s' as writable",
                   bdrv_get_device_or_node_name(bs));
        return NULL;
    }
    if (!allow_inactive && !bdrv_co_activate(bs, errp)) {
        return NULL;
    }
    /* Clients have been told the size. */
    blk = blk_new(BLK_PERM_CONSISTENT_READ | (writable ? BLK_PERM_WRITE : 0),
                  BLK_PERM_ALL & ~(uint64_t)BLK_PERM_RESIZE);
    blk_set_dev_ops(blk, &new_export_ops, opts->id);
    if (!blk_insert_bs(blk, bs, errp)) {
        blk_unref(blk);
        return NULL;
    }
    if (ctx && !blk_co_bind_context(blk, ctx, fixed, &refusal) && fixed) {
        g_propagate_error(errp, g_steal_pointer(&refusal));
        blk_unref(blk);
        return NULL;
    }
    blk_set_allow_inactive(blk, allow_inactive);
    blk_set_enable_write_cache(blk, !(opts->has_writethrough && opts->writethrough));
    return blk;
}

static bool id_is_free(const char *id, GError **errp)
{
    if (blk_exp_find(id)) {
        error_setg(errp, "Block export id '%s' is already in use", id);
        return false;
    }
    return true;
}

BlockExport *coroutine_fn blk_exp_co_add(const BlockExportOptions *opts, GError **errp)
{
    const BlockExportDriver *drv = export_drivers[opts->type];
    BlockDriverState *bs;
    BlockExport *exp;
    BlockBackend *blk;

    if (!id_wellformed(opts->id)) {
        error_setg(errp, "Invalid block export id '%s'", opts->id);
        return NULL;
    }
    if (!id_is_free(opts->id, errp)) {
        return NULL;
    }
    if (!drv) {
        error_setg(errp, "No driver found for the requested export type");
        return NULL;
    }
    bs = bdrv_lookup_bs(NULL, opts->node_name, errp);
    if (!bs) {
        return NULL;
    }
    bdrv_ref(bs);
    blk = blk_exp_co_open_backend(opts, bs, errp);
    bdrv_co_unref(bs);
    if (!blk) {
        return NULL;
    }
    exp = g_malloc0(drv->instance_size);
    exp->drv = drv;
    exp->refcount = 1;
    exp->user_owned = true;
    exp->id = g_strdup(opts->id);
    exp->blk = blk;
    exp->ctx = blk_get_aio_context(blk);
    /* Opening the backend may have waited: the id may be taken by now. */
    if (!id_is_free(opts->id, errp) || !drv->create(exp, opts, errp)) {
        blk_unref(blk);
        g_free(exp->id);
        g_free(exp);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&block_exports, exp, next);
    return exp;
}

/* --- the end --- */

static void coroutine_fn blk_exp_co_delete(void *opaque)
{
    BlockExport *exp = opaque;
    g_autofree char *id = exp->id;

    exp->drv->delete (exp);
    /* When users are told, the iothread can be deleted and the node opened elsewhere. */
    blk_co_unbind_context(exp->blk);
    TAILQ_REMOVE(&block_exports, exp, next);
    blk_unref(exp->blk);
    g_free(exp);
    qapi_event_send_block_export_deleted(id);
    qemu_co_queue_restart_all(&export_deleted);
}

static void blk_exp_delete_bh(void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_create(blk_exp_co_delete, opaque));
}

void blk_exp_ref(BlockExport *exp)
{
    g_atomic_int_inc(&exp->refcount);
}

void blk_exp_unref(BlockExport *exp)
{
    if (g_atomic_int_dec_and_test(&exp->refcount)) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), blk_exp_delete_bh, exp);
    }
}

void blk_exp_request_shutdown(BlockExport *exp)
{
    if (exp->shutting_down) {
        return;
    }
    __atomic_store_n(&exp->shutting_down, true, __ATOMIC_RELEASE);
    exp->drv->request_shutdown(exp);
    g_assert(exp->user_owned);
    exp->user_owned = false;
    blk_exp_unref(exp);
}

/* Asks those of the type that are left to go, as often as is needed; how many there were. */
static unsigned shut_down_exports(BlockExportType type)
{
    unsigned left = 0;
    BlockExport *exp;

    TAILQ_FOREACH(exp, &block_exports, next) {
        if (type == exp->drv->type || type == BLOCK_EXPORT_TYPE__MAX) {
            blk_exp_request_shutdown(exp); /* leaves the list later, in a bottom half */
            left++;
        }
    }
    return left;
}

void coroutine_fn blk_exp_co_close_all(BlockExportType type)
{
    while (shut_down_exports(type) > 0) {
        qemu_co_queue_wait(&export_deleted, NULL);
    }
}
