/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of memory/ share: how a committed change of regions reaches the address spaces. */
#ifndef FERRY_MEMORY_MEMORY_INT_H
#define FERRY_MEMORY_MEMORY_INT_H

#include "memory/address-space.h"

/* Makes a new view of every address space and tells the listeners. Main thread. */
void address_spaces_update(void);
/* The next address space in order of creation; NULL starts and ends. Main thread. */
AddressSpace *address_space_next(AddressSpace *as);

/* A view gets in the place of the old one; only inside memory_listeners_change(). */
typedef void AddressSpacePublish(AddressSpace *as, FlatView *view);
/*
 * A view of `as` changes from `old` (NULL: nothing) to `view`: calls the listeners around
 * publish().
 */
void memory_listeners_change(AddressSpace *as, FlatView *old, FlatView *view,
                             AddressSpacePublish *publish);

#endif
