/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Refcounts made anew. */
#ifndef FERRY_BLOCK_QCOW2_CHECK_H
#define FERRY_BLOCK_QCOW2_CHECK_H

#include "block/qcow2/qcow2.h"

/*
 * Rebuilds the refcounts if s->needs_repair, and takes the dirty bit away. The file below is
 * writable; nothing is in flight.
 */
bool coroutine_fn qcow2_co_repair_dirty(BlockDriverState *bs,
                                        GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Rebuilds refcounts from what refers to clusters: for images whose dirty bit is set. */
bool coroutine_fn qcow2_co_repair_refcounts(BlockDriverState *bs, GError **errp);

#endif
