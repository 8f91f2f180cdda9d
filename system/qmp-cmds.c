/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP commands about the guest and the process as a whole. */
#include "block/block.h"
#include "block/graph/activate.h"
#include "qapi/qapi-commands-block-node.h"
#include "qapi/qapi-commands-control.h"
#include "qapi/qapi-commands-misc.h"
#include "qapi/qapi-commands-run-state.h"
#include "system/cmdline.h"
#include "accel/runstate.h"
#include "accel/vm-stop.h"
#include "system/uuid.h"
#include "util/error.h"

bool coroutine_fn qmp_quit(GError **errp)
{
    qemu_system_shutdown_request(SHUTDOWN_CAUSE_HOST_QMP_QUIT);
    return true;
}

bool coroutine_fn qmp_stop(GError **errp)
{
    vm_co_pause(RUN_STATE_PAUSED);
    return true;
}

bool coroutine_fn qmp_cont(GError **errp)
{
    return vm_co_cont(errp);
}

bool coroutine_fn qmp_query_status(StatusInfo **ret, GError **errp)
{
    RunState state = runstate_get();

    *ret = g_new0(StatusInfo, 1);
    (*ret)->running = state == RUN_STATE_RUNNING;
    (*ret)->status = state;
    return true;
}

bool coroutine_fn qmp_query_name(NameInfo **ret, GError **errp)
{
    *ret = g_new0(NameInfo, 1);
    (*ret)->name = g_strdup(start_config.guest_name);
    return true;
}

bool coroutine_fn qmp_query_uuid(UuidInfo **ret, GError **errp)
{
    char text[UUID_STR_LEN];

    uuid_format(start_config.uuid, text);
    *ret = g_new0(UuidInfo, 1);
    (*ret)->UUID = g_strdup(text);
    return true;
}

bool coroutine_fn qmp_blockdev_set_active(const BlockdevSetActiveArg *arg, GError **errp)
{
    BlockDriverState *bs = NULL;
    bool ok;

    /* The disks of a guest on its way are the migration's to give and to take. */
    if (!vm_check_not_taken(errp)) {
        return false;
    }
    if (arg->node_name) {
        bs = bdrv_lookup_bs(NULL, arg->node_name, errp);
        if (!bs) {
            return false;
        }
        bdrv_ref(bs);
    }
    if (arg->active) {
        ok = bs ? bdrv_co_activate(bs, errp) : bdrv_co_activate_all(errp);
    } else {
        ok = (bs ? bdrv_co_inactivate(bs, errp) : bdrv_co_inactivate_all(errp)) == 0;
    }
    bdrv_co_unref(bs);
    return ok;
}
