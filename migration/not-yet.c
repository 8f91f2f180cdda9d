/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of migration that are still to come: each refuses, none pretends. */
#include "migration/multifd.h"
#include "migration/ram.h"
#include "util/error.h"
#include "util/migration-blocker.h"

void ram_mig_init(void)
{
    (void)!migrate_add_blocker("the guest's memory cannot be migrated yet", NULL);
}

bool multifd_send_setup(MigrationState *s, GError **errp)
{
    error_setg(errp, "multifd is not there yet");
    return false;
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

void multifd_recv_shutdown(MigrationIncomingState *mis)
{
}

void multifd_recv_free(MigrationIncomingState *mis)
{
}
