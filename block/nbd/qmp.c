/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: nbd-server-start, nbd-server-add, nbd-server-remove, nbd-server-stop. */
#include "block/export.h"
#include "block/nbd/server-int.h"
#include "qapi/qapi-commands.h"
#include "util/error.h"

/* The old union wraps each branch in `data`; the parts stay the old one's. */
static void nbd_flatten_address(const SocketAddressLegacy *old, SocketAddress *addr)
{
    switch (old->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        addr->u.inet = *old->u.inet.data;
        break;
    case SOCKET_ADDRESS_TYPE_UNIX:
        addr->u.q_unix = *old->u.q_unix.data;
        break;
    case SOCKET_ADDRESS_TYPE_VSOCK:
        addr->u.vsock = *old->u.vsock.data;
        break;
    default:
        addr->u.fd = *old->u.fd.data;
        break;
    }
    addr->type = old->type;
}

bool coroutine_fn qmp_nbd_server_start(const NbdServerOptions *arg, GError **errp)
{
    SocketAddress addr = {0};
    NbdServerConfig config = {
        .addr = &addr,
        .handshake_max_seconds = arg->has_handshake_max_seconds ? arg->handshake_max_seconds
                                                                : NBD_DEFAULT_HANDSHAKE_MAX_SECONDS,
        .max_connections =
            arg->has_max_connections ? arg->max_connections : NBD_DEFAULT_MAX_CONNECTIONS,
        .tls_creds = arg->tls_creds,
        .tls_authz = arg->tls_authz,
    };

    nbd_flatten_address(arg->addr, &addr);
    return nbd_server_co_start(&config, errp);
}

bool coroutine_fn qmp_nbd_server_stop(GError **errp)
{
    if (!nbd_server_is_running()) {
        error_setg(errp, "NBD server not running");
        return false;
    }
    nbd_server_co_stop();
    return true;
}

/* The name of the export is its id too; a device name is exported through its node. */
bool coroutine_fn qmp_nbd_server_add(const NbdServerAddOptions *arg, GError **errp)
{
    BlockDirtyBitmapOrStr bitmap = {.type = json_type_string, .u.local = arg->bitmap};
    BlockDirtyBitmapOrStrList bitmaps = {.value = &bitmap};
    char *name = arg->name ? arg->name : arg->device;
    BlockExportOptions opts = {.type = BLOCK_EXPORT_TYPE_NBD, .id = name};
    BlockDriverState *bs = bdrv_lookup_bs(arg->device, arg->device, errp);

    if (!bs) {
        return false;
    }
    if (nbd_server_is_running() && nbd_export_find(name)) {
        error_setg(errp, "NBD server already has export named '%s'", name);
        return false;
    }
    opts.node_name = (char *)bdrv_get_node_name(bs);
    opts.has_writable = true;
    opts.writable = arg->has_writable && arg->writable && !bdrv_is_read_only(bs);
    opts.u.nbd.name = name;
    opts.u.nbd.description = arg->description;
    if (arg->bitmap) {
        opts.u.nbd.has_bitmaps = true;
        opts.u.nbd.bitmaps = &bitmaps;
    }
    return blk_exp_co_add(&opts, errp) != NULL;
}

bool coroutine_fn qmp_nbd_server_remove(const NbdServerRemoveArg *arg, GError **errp)
{
    NbdExport *exp = nbd_export_find(arg->name);
    BlockExportDelArg del = {0};

    if (!nbd_server_is_running()) {
        error_setg(errp, "NBD server not running");
        return false;
    }
    if (!exp) {
        error_setg(errp, "Export '%s' is not found", arg->name);
        return false;
    }
    del.id = exp->common.id;
    del.has_mode = arg->has_mode;
    del.mode = arg->mode;
    return qmp_block_export_del(&del, errp);
}
