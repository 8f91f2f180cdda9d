/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Error policy of the guest's disks. */
#include "block/error-policy.h"

#include <errno.h>
#include <glib.h>
#include "qapi/qapi-events-block-node.h"
#include "util/aio.h"

static void (*stop_guest)(RunState reason);

/* One error on its way to the main loop. */
typedef struct ErrorReport {
    BlockBackend *blk; /* kept alive by being busy */
    BlockErrorAction action;
    bool is_read;
    int error;
    char *qom_path;
} ErrorReport;

void blk_set_guest_stopper(void (*request)(RunState reason))
{
    stop_guest = request;
}

BlockErrorAction blk_get_error_action(const BlockBackend *blk, bool is_read, int error)
{
    BlockdevOnError policy = blk_get_on_error(blk, is_read);

    if (policy == BLOCKDEV_ON_ERROR_AUTO) {
        policy = is_read ? BLOCKDEV_ON_ERROR_REPORT : BLOCKDEV_ON_ERROR_ENOSPC;
    }
    switch (policy) {
    case BLOCKDEV_ON_ERROR_IGNORE:
        return BLOCK_ERROR_ACTION_IGNORE;
    case BLOCKDEV_ON_ERROR_STOP:
        return BLOCK_ERROR_ACTION_STOP;
    case BLOCKDEV_ON_ERROR_ENOSPC:
        return error == ENOSPC ? BLOCK_ERROR_ACTION_STOP : BLOCK_ERROR_ACTION_REPORT;
    default:
        return BLOCK_ERROR_ACTION_REPORT;
    }
}

static void send_event(const ErrorReport *report)
{
    BlockDriverState *bs = blk_bs(report->blk);
    const char *name = blk_name(report->blk);
    BlockIoErrorData data = {
        .qom_path = report->qom_path,
        .device = (char *)(name ? name : ""),
        .node_name = bs ? (char *)bdrv_get_node_name(bs) : NULL,
        .operation = report->is_read ? IO_OPERATION_TYPE_READ : IO_OPERATION_TYPE_WRITE,
        .action = report->action,
        .has_nospace = blk_iostatus_is_enabled(report->blk),
        .nospace = report->error == ENOSPC,
        .reason = (char *)g_strerror(report->error),
    };

    qapi_event_send_block_io_error(&data);
}

static void deliver_report(void *opaque)
{
    ErrorReport *report = opaque;

    if (report->action == BLOCK_ERROR_ACTION_STOP) {
        /* A client that hears of the error finds the status already. */
        blk_iostatus_set_err(report->blk, report->error);
    }
    send_event(report);
    if (report->action == BLOCK_ERROR_ACTION_STOP && stop_guest) {
        stop_guest(RUN_STATE_IO_ERROR);
    }
    blk_dec_in_flight(report->blk);
    g_free(report->qom_path);
    g_free(report);
}

void blk_error_action(BlockBackend *blk, BlockErrorAction action, bool is_read, int error,
                      const char *qom_path)
{
    ErrorReport *report = g_new(ErrorReport, 1);

    g_assert(error > 0);
    *report = (ErrorReport){
        .blk = blk,
        .action = action,
        .is_read = is_read,
        .error = error,
        .qom_path = g_strdup(qom_path),
    };
    blk_inc_in_flight(blk);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), deliver_report, report);
}
