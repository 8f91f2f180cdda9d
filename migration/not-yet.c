/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of migration that are still to come: each refuses, none pretends. */
#include <errno.h>
#include "migration/multifd.h"
#include "util/error.h"

bool multifd_send_setup(MigrationState *s, GError **errp)
{
    error_setg(errp, "multifd is not there yet");
    return false;
}

int multifd_send_run(MigrationState *s, const RAMRun *run, bool detect_zero)
{
    return -ENOTSUP;
}

int multifd_send_sync(MigrationState *s)
{
    return -ENOTSUP;
}

void multifd_send_cleanup(MigrationState *s)
{
}

void multifd_send_shutdown(MigrationState *s)
{
}

MultiFDRecv *multifd_recv_new(MigrationIncomingState *mis)
{
    return NULL; /* no channel will find anybody, so the load cannot start */
}

bool coroutine_fn multifd_recv_co_new_channel(MigrationIncomingState *mis, QIOChannel *ioc,
                                              GError **errp)
{
    error_setg(errp, "multifd is not there yet");
    return false;
}

bool multifd_recv_all_channels_created(MigrationIncomingState *mis)
{
    return false;
}

int multifd_recv_sync(MigrationIncomingState *mis, GError **errp)
{
    error_setg(errp, "multifd is not there yet");
    return -ENOTSUP;
}

void multifd_recv_shutdown(MigrationIncomingState *mis)
{
}

void multifd_recv_free(MigrationIncomingState *mis)
{
}
