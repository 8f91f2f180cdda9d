/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Run-time options of a qcow2 node: cache sizes, discards, overlap checks, lazy refcounts. */
#ifndef FERRY_BLOCK_QCOW2_OPTIONS_H
#define FERRY_BLOCK_QCOW2_OPTIONS_H

#include "block/qcow2/qcow2.h"

/* Largest L2 cache unless the user asks for more. */
#define QCOW2_DEFAULT_L2_CACHE_BYTES     (32u << 20)
#define QCOW2_MIN_L2_CACHE_ENTRIES       2
#define QCOW2_MIN_REFBLOCK_CACHE_ENTRIES 4
/* Seconds between two looks for cache entries that are not used. */
#define QCOW2_DEFAULT_CACHE_CLEAN_INTERVAL 600

/*
 * Checks all options, then puts them in force; on failure nothing has changed. The header is
 * loaded; when caches exist, they are clean and idle.
 */
bool qcow2_options_apply(BlockDriverState *bs, const BlockdevOptionsQcow2 *o,
                         GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Checks only. */
bool qcow2_options_check(BlockDriverState *bs, const BlockdevOptionsQcow2 *o,
                         GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Starts and stops cleaning the caches by age, as the options say (clean-timer.c). Graph's thread,
 * or main thread while drained.
 */
void qcow2_clean_timer_start(BlockDriverState *bs);
void qcow2_clean_timer_stop(BlockDriverState *bs);

#endif
