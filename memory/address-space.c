/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Address spaces: which there are, their current views, and what the machine has of its own. */
#include "memory/address-space.h"

#include <pthread.h>
#include "memory/memory-int.h"

TAILQ_HEAD(AddressSpaceList, AddressSpace);

static struct {
    struct AddressSpaceList list; /* changes inside memory_listeners_change() only */
    /* Covers AddressSpace.current: reading it and taking a reference are one step. */
    pthread_mutex_t view_lock;
    AddressSpace memory, io;
    MemoryRegion system_memory, system_io;
    bool made;
} spaces = {.list = TAILQ_HEAD_INITIALIZER(spaces.list), .view_lock = PTHREAD_MUTEX_INITIALIZER};

AddressSpace *address_space_next(AddressSpace *as)
{
    return as ? TAILQ_NEXT(as, link) : TAILQ_FIRST(&spaces.list);
}

FlatView *address_space_get_flatview(AddressSpace *as)
{
    FlatView *view;

    pthread_mutex_lock(&spaces.view_lock);
    view = as->current;
    flatview_ref(view);
    pthread_mutex_unlock(&spaces.view_lock);
    return view;
}

static void publish(AddressSpace *as, FlatView *view)
{
    FlatView *old;

    pthread_mutex_lock(&spaces.view_lock);
    old = as->current;
    as->current = view;
    if (view) {
        flatview_ref(view);
    }
    pthread_mutex_unlock(&spaces.view_lock);
    flatview_unref(old);
}

static void publish_first(AddressSpace *as, FlatView *view)
{
    publish(as, view);
    TAILQ_INSERT_TAIL(&spaces.list, as, link);
}

static void publish_last(AddressSpace *as, FlatView *view)
{
    TAILQ_REMOVE(&spaces.list, as, link);
    publish(as, view);
}

void address_spaces_update(void)
{
    AddressSpace *as;

    TAILQ_FOREACH(as, &spaces.list, link) {
        g_autoptr(FlatView) old = address_space_get_flatview(as);
        g_autoptr(FlatView) view = flatview_new(as->root);

        memory_listeners_change(as, old, view, publish);
    }
}

void address_space_init(AddressSpace *as, MemoryRegion *root, const char *name)
{
    g_autoptr(FlatView) view = flatview_new(root);

    *as = (AddressSpace){.name = g_strdup(name), .root = root};
    TAILQ_INIT(&as->listeners);
    memory_listeners_change(as, NULL, view, publish_first);
}

void address_space_destroy(AddressSpace *as)
{
    g_autoptr(FlatView) old = address_space_get_flatview(as);

    g_assert(TAILQ_EMPTY(&as->listeners));
    memory_listeners_change(as, old, NULL, publish_last);
    g_free(as->name);
    as->name = NULL;
}

/* --- what the machine has --- */

/* Ports where nothing is: the bus floats high. */
static uint64_t unassigned_io_read(void *opaque, hwaddr addr, unsigned size)
{
    return UINT64_MAX;
}

static void unassigned_io_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
}

static const MemoryRegionOps unassigned_io_ops = {
    .read = unassigned_io_read,
    .write = unassigned_io_write,
    .valid.unaligned = true,
};

static void make_machine_spaces(void)
{
    if (spaces.made) {
        return;
    }
    spaces.made = true;
    memory_region_init(&spaces.system_memory, NULL, "system", MEMORY_REGION_WHOLE);
    memory_region_init_io(&spaces.system_io, NULL, &unassigned_io_ops, NULL, "io", 65536);
    address_space_init(&spaces.memory, &spaces.system_memory, "memory");
    address_space_init(&spaces.io, &spaces.system_io, "I/O");
}

AddressSpace *get_address_space_memory(void)
{
    make_machine_spaces();
    return &spaces.memory;
}

AddressSpace *get_address_space_io(void)
{
    make_machine_spaces();
    return &spaces.io;
}

MemoryRegion *get_system_memory(void)
{
    make_machine_spaces();
    return &spaces.system_memory;
}

MemoryRegion *get_system_io(void)
{
    make_machine_spaces();
    return &spaces.system_io;
}
