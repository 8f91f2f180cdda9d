/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a region says about writes besides its operations: eventfds that a write signals, and
 * ranges whose writes may be collected. A view holds both with addresses of its space.
 */
#ifndef FERRY_MEMORY_EVENTS_H
#define FERRY_MEMORY_EVENTS_H

#include <stdbool.h>
#include <stdint.h>
#include "memory/hwaddr.h"

/* Counted: a thread that found it in a view may write to fd as long as it holds the view. */
typedef struct MemoryEventFd {
    int refs;
    int fd;        /* owned */
    hwaddr addr;   /* in the region */
    unsigned size; /* bytes; 0: any */
    bool match_data;
    uint64_t data;
} MemoryEventFd;

/* A MemoryEventFd at an address of a space. */
typedef struct FlatEventFd {
    hwaddr addr;
    MemoryEventFd *event; /* the view holds a reference */
} FlatEventFd;

typedef struct MemoryCoalesced {
    hwaddr first, last; /* both inside; in the region, or in the space */
} MemoryCoalesced;

void memory_eventfd_ref(MemoryEventFd *event);
void memory_eventfd_unref(MemoryEventFd *event);
/* A write of that kind signals it. */
bool memory_eventfd_matches(const MemoryEventFd *event, uint64_t data, uint64_t size);
/* Adds 1. Any thread. */
void memory_eventfd_signal(const MemoryEventFd *event);

#endif
