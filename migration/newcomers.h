/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MigrationNewcomers: peers that have connected to a destination and have not said yet what they are.
 *
 * A connection proves nothing: port scanners and load balancers make them too. A peer is the source when
 * its first bytes are those of a stream or of a channel of multifd, after the TLS handshake if there is
 * one. Until then it costs a slot, of which there is a bounded number. When all are taken the oldest
 * peer that has not sent a byte goes; if all have sent some, the oldest of all.
 *
 * A peer that leaves without a byte is forgotten; one that says something else is reported, at most one
 * line a second. Neither changes the state of the migration.
 *
 * All in the main loop.
 */
#ifndef FERRY_MIGRATION_NEWCOMERS_H
#define FERRY_MIGRATION_NEWCOMERS_H

#include <stdbool.h>
#include "io/channel.h"
#include "migration/channel.h"

/* Slots besides one for each channel that the settings have. */
#define MIGRATION_SPARE_SLOTS 64
/* How long a TLS handshake may take from the connection on. */
#define MIGRATION_HANDSHAKE_NS (10 * NANOSECONDS_PER_SECOND)

typedef struct MigrationNewcomers MigrationNewcomers;

/* func gets the channels of peers that have proved to be the source; it may free the set. */
MigrationNewcomers *migration_newcomers_new(MigrationChannelFunc *func, void *opaque);
/*
 * Takes over ioc. only: no other connection can come, so that a failure is func's, and the first bytes
 * are left to be read.
 */
void migration_newcomers_add(MigrationNewcomers *set, QIOChannel *ioc, bool only);
/* The source is there: other peers' failures are worth a warning, no error. */
void migration_newcomers_set_lenient(MigrationNewcomers *set);
/* Whether a peer has said something, or has gone, and is not settled. */
bool migration_newcomers_speak(const MigrationNewcomers *set);
/* Drops all peers; func is not called any more. NULL is allowed. */
void migration_newcomers_free(MigrationNewcomers *set);

#endif
