/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Address spaces: which there are, their current views, and what the machine has of its own. */
#include "memory/address-space.h"

#include "memory/memory-int.h"
#include "memory/view-pin.h"

TAILQ_HEAD(AddressSpaceList, AddressSpace);

static struct {
    struct AddressSpaceList list; /* changes inside memory_listeners_change() only */
    GPtrArray *replaced;          /* FlatView: out of use; each goes when the change is over */
    AddressSpace memory, io;
    MemoryRegion system_memory, system_io;
    bool made;
} spaces = {.list = TAILQ_HEAD_INITIALIZER(spaces.list)};

AddressSpace *address_space_next(AddressSpace *as)
{
    return as ? TAILQ_NEXT(as, link) : TAILQ_FIRST(&spaces.list);
}

FlatView *address_space_get_flatview(AddressSpace *as)
{
    ViewReader *reader = view_reader();
    FlatView *view = view_pin(reader, &as->current);

    if (view) {
        flatview_ref(view);
    }
    view_unpin(reader);
    return view;
}

static void publish(AddressSpace *as, FlatView *view)
{
    FlatView *old = as->current;

    if (view) {
        flatview_ref(view);
    }
    __atomic_store_n(&as->current, view, __ATOMIC_RELEASE);
    __atomic_store_n(&as->generation, as->generation + 1, __ATOMIC_RELEASE);
    if (old) {
        g_ptr_array_add(spaces.replaced, old);
    }
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

/* Lets go of what publish() has replaced. */
static void end_change(void)
{
    view_retire((FlatView **)spaces.replaced->pdata, spaces.replaced->len);
    g_ptr_array_set_size(spaces.replaced, 0);
}

static void begin_change(void)
{
    if (!spaces.replaced) {
        spaces.replaced = g_ptr_array_new();
    }
}

/* The view of `root`, made once for all spaces that share it. `fresh`: views of this commit. */
static FlatView *view_of(GHashTable *fresh, MemoryRegion *root)
{
    FlatView *view = g_hash_table_lookup(fresh, root);

    if (!view) {
        view = flatview_render(root);
        g_hash_table_insert(fresh, root, view);
    }
    return view;
}

/*
 * The views that spaces keep are found first: a space that comes to show what another one shows
 * gets the other's view.
 */
void address_spaces_update(uint64_t transaction)
{
    g_autoptr(GHashTable) fresh =
        g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)flatview_unref);
    AddressSpace *as;

    begin_change();
    TAILQ_FOREACH(as, &spaces.list, link) {
        MemoryRegion *root = flatview_shared_root(as->root);

        if (as->current->root == root && (!root || root->changed_in != transaction) &&
            !g_hash_table_contains(fresh, root)) {
            g_hash_table_insert(fresh, root, address_space_get_flatview(as));
        }
    }
    TAILQ_FOREACH(as, &spaces.list, link) {
        MemoryRegion *root = flatview_shared_root(as->root);
        FlatView *view = view_of(fresh, root);

        if (view == as->current) {
            continue;
        }
        if (as->current->root == root && flatview_same(as->current, view)) {
            /* It changed and changed back. Other spaces with this root take the same view. */
            g_hash_table_insert(fresh, root, address_space_get_flatview(as));
            continue;
        }
        g_autoptr(FlatView) old = address_space_get_flatview(as);

        memory_listeners_change(as, old, view, publish);
    }
    end_change();
}

/* A view for a space that comes: that of a space which shows the same, or a new one. */
static FlatView *first_view(MemoryRegion *root)
{
    AddressSpace *as;

    root = flatview_shared_root(root);
    if (!memory_transaction_is_pending()) {
        TAILQ_FOREACH(as, &spaces.list, link) {
            if (as->current->root == root) {
                return address_space_get_flatview(as);
            }
        }
    }
    return flatview_render(root);
}

void address_space_init(AddressSpace *as, MemoryRegion *root, const char *name)
{
    g_autoptr(FlatView) view = first_view(root);

    *as = (AddressSpace){.name = g_strdup(name), .root = root};
    TAILQ_INIT(&as->listeners);
    begin_change();
    memory_listeners_change(as, NULL, view, publish_first);
    end_change();
}

void address_space_destroy(AddressSpace *as)
{
    g_autoptr(FlatView) old = address_space_get_flatview(as);

    g_assert(TAILQ_EMPTY(&as->listeners));
    memory_listeners_change(as, old, NULL, publish_last);
    end_change();
    g_free(as->name);
    as->name = NULL;
}

/* --- what the machine has --- */

/* Ports where nothing is: the bus floats high. Writes are lost. */
static uint64_t floating_bus_read(void *opaque, hwaddr addr, unsigned size)
{
    return UINT64_MAX;
}

static const MemoryRegionOps floating_bus_ops = {
    .read = floating_bus_read,
    .guest.unaligned = true,
};

static void make_machine_spaces(void)
{
    if (spaces.made) {
        return;
    }
    spaces.made = true;
    memory_region_init(&spaces.system_memory, NULL, "system", MEMORY_REGION_WHOLE);
    memory_region_init_io(&spaces.system_io, NULL, &floating_bus_ops, NULL, "io", 65536);
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
