/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the source takes from the guest and gives back. The source's thread calls these; the work is
 * done in the main loop, and the thread waits without the big lock. Internal to the source.
 */
#ifndef FERRY_MIGRATION_SOURCE_GUEST_H
#define FERRY_MIGRATION_SOURCE_GUEST_H

#include "migration/migration.h"

/* A flush of all disks while the guest runs. */
typedef struct FlushAhead {
    MigrationState *s; /* constant */
    int refs;          /* atomic: the thread's and the main loop's */
    bool done;         /* s->lock, announced by s->changed */
} FlushAhead;

/* Starts it. A flush that fails fails the migration, while the guest still runs. */
FlushAhead *flush_ahead_start(MigrationState *s);
/* NULL is allowed. A flush that hangs goes on without the migration. */
void flush_ahead_unref(FlushAhead *flush);

/* Takes the guest (accel/vm-stop.h) and writes its disks back. 0, or -EIO with an error. */
int source_guest_stop(MigrationState *s, GError **errp);
/* Makes its disks inactive, for the destination to take. 0, or -EIO with an error. */
int source_guest_give_disks(MigrationState *s, GError **errp);
/*
 * From here on until the guest is given back or has left, a peer that takes no byte for
 * MIGRATION_SILENCE_S while the guest is stopped fails the migration. If the peer may have the guest
 * by then, the wait goes on, and a warning says what a user can do.
 */
#define MIGRATION_SILENCE_S 30
void source_guest_watch_peer(MigrationState *s);
/*
 * The migration has failed or was cancelled: the guest goes on here, unless it may run elsewhere.
 * No byte of the stream leaves any more. Nothing happens when the guest was not taken.
 */
void source_guest_give_back(MigrationState *s);
/* The last thing that the thread does: gives the migration its final status. */
void source_guest_settle(MigrationState *s);

#endif
