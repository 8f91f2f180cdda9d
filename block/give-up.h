/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Servers that have fallen silent while somebody must not be kept waiting: the end of the process.
 */
#ifndef FERRY_BLOCK_GIVE_UP_H
#define FERRY_BLOCK_GIVE_UP_H

#include <stdint.h>

/*
 * Until the watch ends, a node whose connection can be given up (bdrv_cancel_in_flight), that has
 * requests in flight and has finished none for limit_ns, is given up: what it waits for is
 * reported, its requests fail, and those to come are refused as long as the node lives. A server
 * that is slow and goes on answering is left alone. Main thread; one watch at a time.
 */
void bdrv_give_up_watch_begin(int64_t limit_ns);
void bdrv_give_up_watch_end(void);

#endif
