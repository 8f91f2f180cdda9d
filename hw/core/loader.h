/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes that a machine finds in its memory before the first instruction, and again after each
 * reset: kernels, their tables, firmware. Main thread.
 */
#ifndef FERRY_HW_CORE_LOADER_H
#define FERRY_HW_CORE_LOADER_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include "memory/hwaddr.h"
#include "util/coroutine.h"

/*
 * Takes `bytes` over for memory at `addr`. False and errp, with the name in it: another blob has some of
 * these addresses.
 */
bool loader_add(const char *name, hwaddr addr, GBytes *bytes,
                GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The first address from `addr` on, aligned to `align`, with room for `bytes` beside all blobs. */
hwaddr loader_room(hwaddr addr, uint64_t bytes, uint64_t align);
/*
 * From now on each reset of the machine writes the blobs, ROM included; the first is before this
 * returns. Of a machine's co_init, after loader_add().
 */
bool coroutine_fn loader_co_start(GError **errp) G_GNUC_WARN_UNUSED_RESULT;

void loader_register_types(void);

#endif
