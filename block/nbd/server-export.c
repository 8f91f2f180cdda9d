/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Exports of type nbd: options, names, bitmaps, drained sections. */
#include "block/nbd/server-int.h"
#include "block/nbd/server.h"
#include "util/error.h"

/* Main thread: what the server offers, in the order in which it was added. */
static TAILQ_HEAD(NbdExportList, NbdExport) nbd_exports = TAILQ_HEAD_INITIALIZER(nbd_exports);

NbdExport *nbd_export_find(const char *name)
{
    NbdExport *exp;

    TAILQ_FOREACH(exp, &nbd_exports, next) {
        if (!strcmp(exp->name, name)) {
            return exp;
        }
    }
    return NULL;
}

NbdExport *nbd_export_next(NbdExport *exp)
{
    return exp ? TAILQ_NEXT(exp, next) : TAILQ_FIRST(&nbd_exports);
}

uint16_t nbd_export_flags(const NbdExport *exp, bool structured)
{
    uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_SEND_CACHE |
                     NBD_FLAG_CAN_MULTI_CONN; /* one graph behind all connections */

    if (exp->writable) {
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    } else {
        flags |= NBD_FLAG_READ_ONLY;
    }
    if (structured) {
        flags |= NBD_FLAG_SEND_DF;
    }
    return flags;
}

int64_t nbd_export_size(const NbdExport *exp)
{
    return blk_getlength(exp->common.blk);
}

/* --- drained sections; export's thread --- */

static void nbd_export_drained_begin(void *opaque)
{
    NbdExport *exp = opaque;
    NbdConn *conn;

    exp->quiesced = true;
    TAILQ_FOREACH(conn, &exp->conns, next_in_export) {
        nbd_conn_drained_begin(conn);
    }
}

static void nbd_export_drained_end(void *opaque)
{
    NbdExport *exp = opaque;
    NbdConn *conn;

    exp->quiesced = false;
    TAILQ_FOREACH(conn, &exp->conns, next_in_export) {
        nbd_conn_drained_end(conn);
    }
}

/* Requests in flight and readers on their way to parking are counted in the BlockBackend. */
static bool nbd_export_drained_poll(void *opaque)
{
    return false;
}

static char *nbd_export_get_desc(void *opaque)
{
    NbdExport *exp = opaque;

    return g_strdup_printf("NBD export '%s'", exp->name);
}

static bool nbd_export_can_set_aio_context(void *opaque, AioContext *ctx, GError **errp)
{
    return true;
}

static void nbd_export_set_aio_context(void *opaque, AioContext *ctx)
{
    NbdExport *exp = opaque;

    exp->common.ctx = ctx;
}

static const BlockDevOps nbd_export_ops = {
    .drained_begin = nbd_export_drained_begin,
    .drained_poll = nbd_export_drained_poll,
    .drained_end = nbd_export_drained_end,
    .get_desc = nbd_export_get_desc,
    .can_set_aio_context = nbd_export_can_set_aio_context,
    .set_aio_context = nbd_export_set_aio_context,
};

/* --- bitmaps --- */

/* A bitmap by name, in the exported node or in what it stands on. */
static BdrvDirtyBitmap *nbd_find_bitmap(BlockDriverState *bs, const char *name)
{
    for (BlockDriverState *p = bs; p;) {
        BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(p, name);
        BlockDriverState *below = bdrv_filter_bs(p);

        if (bitmap) {
            return bitmap;
        }
        p = below ? below : bdrv_cow_bs(p);
    }
    return NULL;
}

static BdrvDirtyBitmap *nbd_bitmap_by_option(BlockDriverState *bs, const BlockDirtyBitmapOrStr *opt,
                                             GError **errp)
{
    const char *name = opt->type == json_type_string ? opt->u.local : opt->u.external.name;
    BdrvDirtyBitmap *bitmap;

    if (opt->type != json_type_string) {
        bs = bdrv_lookup_bs(opt->u.external.node, opt->u.external.node, errp);
        if (!bs) {
            return NULL;
        }
        bitmap = bdrv_find_dirty_bitmap(bs, name);
    } else {
        bitmap = nbd_find_bitmap(bs, name);
    }
    if (!bitmap) {
        error_setg(errp, "Bitmap '%s' is not found", name);
    }
    return bitmap;
}

static bool nbd_export_add_bitmap(NbdExport *exp, BlockDriverState *bs,
                                  const BlockDirtyBitmapOrStr *opt, GError **errp)
{
    BdrvDirtyBitmap *bitmap = nbd_bitmap_by_option(bs, opt, errp);
    const char *name;

    if (!bitmap ||
        !bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT, errp)) {
        return false;
    }
    name = bdrv_dirty_bitmap_name(bitmap);
    if (!exp->writable && !bdrv_is_read_only(bdrv_dirty_bitmap_bs(bitmap)) &&
        bdrv_dirty_bitmap_enabled(bitmap)) {
        error_setg(errp, "Enabled bitmap '%s' incompatible with readonly export", name);
        return false;
    }
    if (strlen(name) + strlen(NBD_CONTEXT_DIRTY_BITMAP) > NBD_MAX_STRING) {
        error_setg(errp, "Bitmap name '%s' is too long for NBD", name);
        return false;
    }
    exp->bitmaps = g_renew(NbdExportBitmap, exp->bitmaps, exp->n_bitmaps + 1);
    exp->bitmaps[exp->n_bitmaps].bitmap = bitmap;
    exp->bitmaps[exp->n_bitmaps].context = g_strconcat(NBD_CONTEXT_DIRTY_BITMAP, name, NULL);
    exp->n_bitmaps++;
    bdrv_dirty_bitmap_set_busy(bitmap, true); /* no command changes it while it is exported */
    return true;
}

static void nbd_export_drop_bitmaps(NbdExport *exp)
{
    for (unsigned i = 0; i < exp->n_bitmaps; i++) {
        bdrv_dirty_bitmap_set_busy(exp->bitmaps[i].bitmap, false);
        g_free(exp->bitmaps[i].context);
    }
    g_clear_pointer(&exp->bitmaps, g_free);
    exp->n_bitmaps = 0;
}

/* --- life --- */

/* True, with errp, when the protocol has no room for the text; NULL always fits. */
static bool is_beyond_wire(const char *what, const char *text, GError **errp)
{
    bool beyond = text && strnlen(text, NBD_MAX_STRING + 1) > NBD_MAX_STRING;

    if (beyond) {
        error_setg(errp, "%s '%s' too long", what, text);
    }
    return beyond;
}

static bool may_be_offered(const BlockExportOptionsNbd *nbd, const char *name, GError **errp)
{
    if (is_beyond_wire("export name", name, errp) ||
        is_beyond_wire("description", nbd->description, errp)) {
        return false;
    }
    if (!nbd_server_is_running()) {
        error_setg(errp, "NBD server not running");
    } else if (nbd_export_find(name)) {
        error_setg(errp, "NBD server already has export named '%s'", name);
    } else {
        return true;
    }
    return false;
}

static bool coroutine_fn nbd_offer_co_begin(BlockExport *blk_exp, const BlockExportOptions *opts,
                                            GError **errp)
{
    static uint64_t last_serial;
    NbdExport *exp = (NbdExport *)blk_exp;
    const BlockExportOptionsNbd *nbd = &opts->u.nbd;
    const char *name = nbd->name ? nbd->name : opts->node_name;
    BlockDriverState *bs = blk_bs(blk_exp->blk);

    if (!may_be_offered(nbd, name, errp)) {
        return false;
    }
    exp->writable = opts->has_writable && opts->writable;
    exp->allocation_depth = nbd->has_allocation_depth && nbd->allocation_depth;
    if (nbd->has_bitmaps) {
        for (const BlockDirtyBitmapOrStrList *b = nbd->bitmaps; b; b = b->next) {
            if (!nbd_export_add_bitmap(exp, bs, b->value, errp)) {
                nbd_export_drop_bitmaps(exp);
                return false;
            }
        }
    }
    exp->serial = ++last_serial;
    exp->name = g_strdup(name);
    exp->description = g_strdup(nbd->description);
    g_mutex_init(&exp->lock);
    TAILQ_INIT(&exp->conns);
    /* the export holds its requests back by itself: what it has begun must be let through */
    blk_set_disable_request_queuing(blk_exp->blk, true);
    blk_set_dev_ops(blk_exp->blk, &nbd_export_ops, exp);
    TAILQ_INSERT_TAIL(&nbd_exports, exp, next);
    exp->offered = true;
    return true;
}

static void nbd_offer_withdraw(NbdExport *exp)
{
    if (exp->offered) {
        TAILQ_REMOVE(&nbd_exports, exp, next);
        exp->offered = false;
    }
}

static void nbd_offer_end(BlockExport *blk_exp)
{
    NbdExport *exp = (NbdExport *)blk_exp;
    NbdConn *conn;

    nbd_offer_withdraw(exp);
    g_mutex_lock(&exp->lock);
    TAILQ_FOREACH(conn, &exp->conns, next_in_export) {
        qio_channel_shutdown(conn->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
    }
    g_mutex_unlock(&exp->lock);
}

static void nbd_offer_free(BlockExport *blk_exp)
{
    NbdExport *exp = (NbdExport *)blk_exp;

    g_assert(TAILQ_EMPTY(&exp->conns));
    nbd_offer_withdraw(exp);
    blk_set_dev_ops(blk_exp->blk, NULL, NULL);
    nbd_export_drop_bitmaps(exp);
    g_mutex_clear(&exp->lock);
    g_free(exp->name);
    g_free(exp->description);
}

static const BlockExportDriver nbd_export_driver = {
    .type = BLOCK_EXPORT_TYPE_NBD,
    .instance_size = sizeof(NbdExport),
    .create = nbd_offer_co_begin,
    .request_shutdown = nbd_offer_end,
    .delete = nbd_offer_free,
};

void nbd_server_register(void)
{
    blk_exp_register_driver(&nbd_export_driver);
}
