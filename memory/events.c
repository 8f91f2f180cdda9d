/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Eventfds and collected writes of regions. */
#include "memory/events.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "memory/memory-int.h"
#include "util/error.h"

void memory_eventfd_ref(MemoryEventFd *event)
{
    __atomic_fetch_add(&event->refs, 1, __ATOMIC_RELAXED);
}

void memory_eventfd_unref(MemoryEventFd *event)
{
    if (__atomic_sub_fetch(&event->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        close(event->fd);
        g_free(event);
    }
}

bool memory_eventfd_matches(const MemoryEventFd *event, uint64_t data, uint64_t size)
{
    return (!event->size || event->size == size) && (!event->match_data || event->data == data);
}

void memory_eventfd_signal(const MemoryEventFd *event)
{
    const uint64_t one = 1;

    /* A full counter is a signal that was not taken yet: nothing is lost. */
    while (write(event->fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
}

static int compare(const MemoryEventFd *a, const MemoryEventFd *b)
{
    if (a->addr != b->addr) {
        return a->addr < b->addr ? -1 : 1;
    }
    if (a->size != b->size) {
        return a->size < b->size ? -1 : 1;
    }
    if (a->match_data != b->match_data) {
        return a->match_data ? 1 : -1;
    }
    return !a->match_data || a->data == b->data ? 0 : a->data < b->data ? -1 : 1;
}

/* Where it is, or belongs. */
static guint place_of(const MemoryRegion *mr, const MemoryEventFd *event, bool *there)
{
    guint i = 0;
    int order = 1;

    while (mr->eventfds && i < mr->eventfds->len &&
           (order = compare(g_ptr_array_index(mr->eventfds, i), event)) < 0) {
        i++;
    }
    *there = order == 0;
    return i;
}

bool memory_region_add_eventfd(MemoryRegion *mr, hwaddr addr, unsigned size, bool match_data,
                               uint64_t data, int fd, GError **errp)
{
    MemoryEventFd event = {.refs = 1,
                           .addr = addr,
                           .size = size,
                           .match_data = match_data,
                           .data = match_data ? data : 0};
    bool there;
    guint place = place_of(mr, &event, &there);

    g_assert(mr->ops && !there);
    event.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (event.fd < 0) {
        error_setg_errno(errp, errno, "Could not duplicate the eventfd of region '%s'", mr->name);
        return false;
    }
    if (!mr->eventfds) {
        mr->eventfds = g_ptr_array_new_with_free_func((GDestroyNotify)memory_eventfd_unref);
    }
    g_ptr_array_insert(mr->eventfds, (gint)place, g_memdup2(&event, sizeof(event)));
    memory_region_events_changed(mr);
    return true;
}

void memory_region_del_eventfd(MemoryRegion *mr, hwaddr addr, unsigned size, bool match_data,
                               uint64_t data)
{
    MemoryEventFd event = {
        .addr = addr, .size = size, .match_data = match_data, .data = match_data ? data : 0};
    bool there;
    guint place = place_of(mr, &event, &there);

    g_assert(there);
    g_ptr_array_remove_index(mr->eventfds, place);
    memory_region_events_changed(mr);
}

void memory_region_add_coalescing(MemoryRegion *mr, hwaddr addr, uint64_t size)
{
    MemoryCoalesced span = {addr, addr + size - 1};
    guint i = 0;

    g_assert(mr->ops && size && addr < mr->size && size <= mr->size - addr);
    if (!mr->coalesced) {
        mr->coalesced = g_array_new(FALSE, FALSE, sizeof(MemoryCoalesced));
    }
    while (i < mr->coalesced->len &&
           g_array_index(mr->coalesced, MemoryCoalesced, i).first < addr) {
        i++;
    }
    g_array_insert_val(mr->coalesced, i, span);
    memory_region_events_changed(mr);
}

void memory_region_clear_coalescing(MemoryRegion *mr)
{
    if (mr->coalesced) {
        g_clear_pointer(&mr->coalesced, g_array_unref);
        memory_region_events_changed(mr);
    }
}

void memory_region_drop_events(MemoryRegion *mr)
{
    g_clear_pointer(&mr->eventfds, g_ptr_array_unref);
    g_clear_pointer(&mr->coalesced, g_array_unref);
}
