/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The contents of the sections of "ram", written. The source's thread, without the big lock; 0 (or as
 * said) or -errno with an error. The statistics of rs->s are kept up to date.
 */
#ifndef FERRY_MIGRATION_RAM_SAVE_H
#define FERRY_MIGRATION_RAM_SAVE_H

#include "migration/ram.h"

/* START: the list of blocks. Makes the first pass over the log. */
int ram_save_setup(RAMSaveState *rs, QEMUFile *f, GError **errp);
/* PART: pages, until the bandwidth, the time slice or the pages are used up; 1: the pages. */
int ram_save_iterate(RAMSaveState *rs, QEMUFile *f, GError **errp);
/* END: a last pass unless there was one, and all pages. The guest is stopped. */
int ram_save_complete(RAMSaveState *rs, QEMUFile *f, GError **errp);

#endif
