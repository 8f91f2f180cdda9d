/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the rooms of multifd share, and the tests' way in. */
#ifndef FERRY_MIGRATION_MULTIFD_INT_H
#define FERRY_MIGRATION_MULTIFD_INT_H

#include <glib.h>
#include <stdint.h>
#include "io/channel.h"
#include "migration/batch-queue.h"
#include "migration/migration.h"
#include "migration/multifd-packet.h"

/* --- source --- */

/* What is to happen to a page of a batch. */
typedef enum MultiFDPageKind {
    MULTIFD_PAGE_NORMAL, /* its bytes are sent */
    MULTIFD_PAGE_LOOK,   /* unless all of them are zero */
    MULTIFD_PAGE_ZERO,   /* is known to be zero */
} MultiFDPageKind;

/*
 * Pages of one block on their way to a channel. The place of the batch tells its owner: the
 * source's thread, the queue (its lock) or one channel's thread.
 */
typedef struct MultiFDBatch {
    Batch batch;     /* first */
    RAMBlock *block; /* referenced; NULL in an empty one */
    unsigned n;
    uint64_t offsets[MULTIFD_PACKET_PAGES]; /* bytes in the block */
    uint8_t kinds[MULTIFD_PACKET_PAGES];    /* MultiFDPageKind */
} MultiFDBatch;

/* Puts the pages into the packet, zero pages last, having looked at those that are to be looked at. */
void multifd_zero_split(const MultiFDBatch *batch, MultiFDPacket *packet);

/* How a source gets its further channels; tests have another way. */
typedef QIOChannel *MultiFDConnectFunc(MigrationState *s, GError **errp);
void multifd_send_set_connect(MultiFDConnectFunc *func); /* NULL: the usual way */

#endif
