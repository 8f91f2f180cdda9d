/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Servers that hang while the process ends: their nodes are given up, so that the process can end.
 */
#ifndef FERRY_BLOCK_GIVE_UP_H
#define FERRY_BLOCK_GIVE_UP_H

#include <stdbool.h>
#include <stdint.h>
#include "util/coroutine.h"

/*
 * The watch looks at nodes whose connection can be given up (bdrv_cancel_in_flight). One that has
 * requests in flight and has finished none for limit_ns is given up. What it waits for is reported,
 * its requests fail, and later ones are refused as long as the node lives. A server that is slow
 * but answers is left alone: half-way it is asked for a block. If the block arrives, the node is
 * waited for, which is said once. Main thread; one watch at a time.
 */
void bdrv_give_up_watch_begin(int64_t limit_ns);
void bdrv_give_up_watch_end(void);
/* The watch is on: the process ends, and what is not written now is lost. Any thread. */
bool bdrv_give_up_is_watched(void);

/*
 * From now on nothing is opened. What is being opened is not waited for: connections that only it
 * uses are cut, so that it fails; what does not end by that is left after limit_ns. Main context.
 */
void coroutine_fn bdrv_co_abandon_opening(int64_t limit_ns);

#endif
