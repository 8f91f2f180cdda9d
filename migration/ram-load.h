/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The contents of the sections of "ram", read into guest memory.
 *
 * The incoming thread, without the big lock, which is taken to resize blocks.
 */
#ifndef FERRY_MIGRATION_RAM_LOAD_H
#define FERRY_MIGRATION_RAM_LOAD_H

#include "migration/migration.h"
#include "migration/ram-mapped-io.h"
#include "migration/ram-receive.h"
#include "vmstate/qemu-file.h"

typedef struct RAMLoadState {
    MigrationIncomingState *mis; /* its settings and channels */
    RAMRecv *recv;               /* owned */
    RAMRecvBlock *last;          /* of the records of the main channel; NULL: none was named yet */
    uint8_t *scratch;            /* bytes on their way into memory */
    MappedIO *mapped;            /* NULL: no block came as mapped-ram yet */
    /* Barriers of multifd: each EOS is one unless the first section, which ends with one, has a FLUSH. */
    bool first_section_read;
    bool barriers_by_flush;
} RAMLoadState;

/* Before the first section. NULL with an error. */
RAMLoadState *ram_load_new(MigrationIncomingState *mis, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Reads the records of one section. 0, or -errno with an error that says what and where. */
int ram_load_section(RAMLoadState *rl, QEMUFile *f, int version_id, GError **errp);
/* The last section has been read. 0 or -errno. */
int ram_load_complete(RAMLoadState *rl, GError **errp);
void ram_load_free(RAMLoadState *rl); /* NULL is allowed */

#endif
