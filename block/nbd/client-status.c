/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block status of the NBD client: asks for all extents of a range at once, and hands them out one
 * by one to a walk over the disk in order.
 */
#include "block/nbd/client-int.h"

/* A range this small has one extent worth knowing. */
#define NBD_ASK_ONE_BYTES (1 << 20)
#define NBD_AHEAD_NS      NANOSECONDS_PER_SECOND

void nbd_status_forget(NbdClient *client)
{
    client->ahead.offset = -1;
    client->ahead.changes++;
}

/* Fits an extent to the request and the alignment the block layer relies on. */
static void nbd_fit_extent(const NbdClient *client, NbdExtent *e, int64_t bytes)
{
    uint32_t align = client->info.min_block;

    e->bytes = MIN(e->bytes, bytes);
    if (e->bytes < bytes && e->bytes % align) {
        if (e->bytes > align) {
            e->bytes -= e->bytes % align;
        } else {
            e->bytes = MIN(align, bytes);
            e->flags = 0; /* not the same throughout: data, to be safe */
        }
    }
}

/* Uses the extent that begins at offset, if that was told ahead; it is then used up. */
static bool take_ahead(NbdClient *client, int64_t offset, int64_t bytes, NbdExtent *extent)
{
    NbdStatusAhead *ahead = &client->ahead;
    NbdExtent *next;

    if (ahead->offset != offset || ahead->pos == ahead->extents->len ||
        qemu_clock_get_ns(QEMU_CLOCK_REALTIME) > ahead->expires_ns) {
        ahead->offset = -1;
        return false;
    }
    next = &g_array_index(ahead->extents, NbdExtent, ahead->pos);
    *extent = *next;
    if (extent->bytes > bytes) {
        extent->bytes = bytes;
        next->bytes -= bytes;
    } else {
        ahead->pos++;
    }
    ahead->offset += extent->bytes;
    return true;
}

/* Keeps what follows the first extent, as far as it begins and ends on blocks. */
static void keep_ahead(NbdClient *client, int64_t offset, GArray *more)
{
    NbdStatusAhead *ahead = &client->ahead;
    guint n = 0;

    while (n < more->len && g_array_index(more, NbdExtent, n).bytes % client->info.min_block == 0) {
        n++;
    }
    g_array_set_size(more, n);
    g_clear_pointer(&ahead->extents, g_array_unref);
    ahead->extents = g_array_ref(more);
    ahead->pos = 0;
    ahead->offset = n ? offset : -1;
    ahead->expires_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + NBD_AHEAD_NS;
}

static int coroutine_fn co_ask(NbdClient *client, int64_t offset, int64_t bytes, NbdExtent *extent)
{
    bool one = bytes <= NBD_ASK_ONE_BYTES;
    g_autoptr(GArray) more = one ? NULL : g_array_new(FALSE, FALSE, sizeof(NbdExtent));
    NbdPending p = {
        .wire = {.command = NBD_CMD_BLOCK_STATUS,
                 .flags = one ? NBD_CMD_FLAG_REQ_ONE : 0,
                 .offset = offset,
                 .length = bytes},
        .more = more,
    };
    unsigned changes = client->ahead.changes;
    int ret = nbd_client_co_request(client, &p);
    uint32_t told = p.extent.bytes;

    if (ret < 0) {
        return ret;
    }
    nbd_fit_extent(client, &p.extent, bytes);
    *extent = p.extent;
    if (more && told == p.extent.bytes && changes == client->ahead.changes) {
        keep_ahead(client, offset + told, more);
    }
    return 0;
}

int coroutine_fn nbd_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     BdrvBlockStatus *status)
{
    NbdClient *client = bs->opaque;
    int64_t ask = MIN(bytes, (int64_t)client->info.size - offset);
    NbdExtent extent;
    int ret;

    status->map = offset;
    status->file = bs;
    if (offset >= (int64_t)client->info.size) {
        status->pnum = bytes;
        status->flags = BDRV_BLOCK_ZERO;
        return 0;
    }
    if (!client->info.has_context) {
        status->pnum = bytes;
        status->flags = BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
        return 0;
    }
    ask = MIN(ask, (int64_t)UINT32_MAX / client->info.min_block * client->info.min_block);
    if (!take_ahead(client, offset, ask, &extent)) {
        ret = co_ask(client, offset, ask, &extent);
        if (ret < 0) {
            return ret;
        }
    }
    status->pnum = extent.bytes;
    status->flags = (extent.flags & NBD_STATE_HOLE ? 0 : BDRV_BLOCK_DATA) |
                    (extent.flags & NBD_STATE_ZERO ? BDRV_BLOCK_ZERO : 0) | BDRV_BLOCK_OFFSET_VALID;
    return 0;
}
