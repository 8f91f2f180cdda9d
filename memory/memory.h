/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory regions: what the guest finds at an address.
 *
 * Regions form trees. A container places its subregions at offsets; where they overlap the one with
 * the higher priority is seen, among equals the one added last. An alias shows a window of another
 * region. Behind each AddressSpace stands the root of such a tree; committing a transaction
 * flattens it into a sorted view (memory/flatview.h) and tells the listeners (memory/listener.h)
 * what changed.
 *
 * Regions are embedded in what they belong to; they are changed, and devices' operations run, under
 * the big lock (util/bql.h), which "main thread" stands for below. Reading and writing RAM
 * (memory/address-space.h) works in any thread.
 */
#ifndef FERRY_MEMORY_MEMORY_H
#define FERRY_MEMORY_MEMORY_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "memory/hwaddr.h"
#include "memory/ram-block.h"
#include "util/queue.h"

typedef struct MemoryRegion MemoryRegion;

/* One access to a device, as the region's function gets it. */
typedef struct MemoryTransaction {
    hwaddr addr;   /* in the region */
    uint64_t data; /* a write's value; a read's answer. Only the low `size` bytes count */
    unsigned size; /* bytes: 1, 2, 4, 8 */
    bool is_write;
    MemTxAttrs attrs;
} MemoryTransaction;

/* Which accesses are possible. Sizes are bytes: 1, 2, 4 or 8; zero members have their defaults. */
typedef struct MemoryAccessSizes {
    unsigned min, max; /* 1 and 4 */
    bool unaligned;    /* false: addresses are multiples of the size */
} MemoryAccessSizes;

/*
 * What a device does at an address inside its region; `size` bytes at `addr` always lie inside it.
 * A region has read and write, either of which may be missing (reads as 0, ignores), or transact.
 */
typedef struct MemoryRegionOps {
    /* Whether the guest may make the access, which `guest` permits; NULL: it may. */
    bool (*accepts)(void *opaque, const MemoryTransaction *t);
    /* The accesses that the guest may make; any other ends with MEMTX_DECODE_ERROR. */
    MemoryAccessSizes guest;
    /* The accesses that the functions below can do: others are split, or widened. */
    MemoryAccessSizes device;
    bool big_endian; /* the order of bytes in registers; false: little */
    uint64_t (*read)(void *opaque, hwaddr addr, unsigned size);
    void (*write)(void *opaque, hwaddr addr, uint64_t data, unsigned size);
    /* Instead of the two: for a device that can fail, or looks at the attributes. */
    MemTxResult (*transact)(void *opaque, MemoryTransaction *t);
} MemoryRegionOps;

TAILQ_HEAD(MemoryRegionList, MemoryRegion);
TAILQ_HEAD(MemoryAliasList, MemoryRegion);

/* Members are memory.c's; others read them through the functions below. */
struct MemoryRegion {
    char *name;
    char *owner; /* path of an object; NULL: none */
    unsigned __int128 size;
    const MemoryRegionOps *ops; /* MMIO and ROM devices; NULL: RAM, container, alias */
    void *opaque;
    void (*resized)(void *opaque, uint64_t length, void *host);
    RAMBlock *ram_block; /* RAM; owned unless borrowed */
    bool ram_borrowed;
    bool readonly; /* the guest can't write */
    bool romd;     /* a ROM device whose reads are those of its memory */
    bool lockless; /* its operations run without the big lock */
    bool enabled;
    bool initialized;
    unsigned log_mask; /* 1 << client: what this region's owner logs */

    uint64_t changed_in; /* the last transaction that changed it, or a region seen through it */
    GPtrArray *eventfds; /* MemoryEventFd, ascending; NULL: none */
    GArray *coalesced;   /* MemoryCoalesced, ascending; NULL: none */

    MemoryRegion *alias;
    hwaddr alias_offset;
    struct MemoryAliasList aliases; /* those that show this region */
    TAILQ_ENTRY(MemoryRegion) alias_link;

    MemoryRegion *container;
    hwaddr addr; /* in the container */
    int priority;
    struct MemoryRegionList subregions; /* highest priority first, then youngest first */
    TAILQ_ENTRY(MemoryRegion) link;
};

/* Size of a region that covers everything: 2^64 bytes. */
#define MEMORY_REGION_WHOLE UINT64_MAX

/*
 * The constructors. `owner` is the path of the object that it belongs to, for people to see (NULL:
 * none); it and `name` are copied. `size` is in bytes and may be 0. A region is enabled, placed nowhere, and lives until
 * memory_region_destroy().
 */
void memory_region_init(MemoryRegion *mr, const char *owner, const char *name, uint64_t size);
void memory_region_init_io(MemoryRegion *mr, const char *owner, const MemoryRegionOps *ops,
                           void *opaque, const char *name, uint64_t size);
/*
 * RAM that migrates under the name `name`. False: errp says why; mr is as if never made.
 */
bool memory_region_init_ram(MemoryRegion *mr, const char *owner, const char *name, uint64_t size,
                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* RAM without a name in migration; ram_flags as RAMBlockOptions. */
bool memory_region_init_ram_nomigrate(MemoryRegion *mr, const char *owner, const char *name,
                                      uint64_t size, uint32_t ram_flags,
                                      GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * RAM that migrates and whose size changes with ram_block_resize(), here or by a migration;
 * `resized` (or NULL) is called in the main thread after that.
 */
bool memory_region_init_resizeable_ram(MemoryRegion *mr, const char *owner, const char *name,
                                       uint64_t size, uint64_t max_size,
                                       void (*resized)(void *opaque, uint64_t length, void *host),
                                       void *opaque, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * As init_ram, and the guest can't write it. The owner fills it through
 * memory_region_get_ram_ptr().
 */
bool memory_region_init_rom(MemoryRegion *mr, const char *owner, const char *name, uint64_t size,
                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * A ROM device (flash): memory that migrates under the name `name`, and operations. While it is in
 * ROM mode, as it is at first, reads are those of the memory and writes go to `ops`. Otherwise
 * both go to `ops`. The device changes the memory through memory_region_get_ram_ptr() and
 * memory_region_set_dirty().
 */
bool memory_region_init_rom_device(MemoryRegion *mr, const char *owner, const MemoryRegionOps *ops,
                                   void *opaque, const char *name, uint64_t size,
                                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Shows a block that another object owns, all of it. RAM_READONLY makes it read-only. */
void memory_region_init_ram_from_block(MemoryRegion *mr, const char *owner, const char *name,
                                       RAMBlock *block);
/* A window of `orig` that starts at `offset` in it. `orig` outlives mr. */
void memory_region_init_alias(MemoryRegion *mr, const char *owner, const char *name,
                              MemoryRegion *orig, hwaddr offset, uint64_t size);
/*
 * mr is in no container, has no subregions and no aliases, and no transaction is open. Frees its
 * RAM. Returns when no thread runs its operations any more; see memory_region_set_lockless().
 */
void memory_region_destroy(MemoryRegion *mr);

/* --- placing and changing: each is a transaction of its own, or part of the open one --- */

void memory_region_add_subregion(MemoryRegion *mr, hwaddr offset, MemoryRegion *subregion);
void memory_region_add_subregion_overlap(MemoryRegion *mr, hwaddr offset, MemoryRegion *subregion,
                                         int priority);
void memory_region_del_subregion(MemoryRegion *mr, MemoryRegion *subregion);
void memory_region_set_enabled(MemoryRegion *mr, bool enabled);
void memory_region_set_address(MemoryRegion *mr, hwaddr addr);
void memory_region_set_alias_offset(MemoryRegion *mr, hwaddr offset);
/* Containers, aliases and MMIO. */
void memory_region_set_size(MemoryRegion *mr, uint64_t size);
/* RAM: whether the guest can write. */
void memory_region_set_readonly(MemoryRegion *mr, bool readonly);
/* A ROM device: whether reads are those of its memory. */
void memory_region_rom_device_set_romd(MemoryRegion *mr, bool romd);
/* RAM: whether `client` (DIRTY_MEMORY_VGA) logs writes to it. Not counted. */
void memory_region_set_log(MemoryRegion *mr, bool log, unsigned client);

/*
 * Before the region is placed: its operations run in the thread that makes the access, without the
 * big lock, several at a time. They never take the big lock and never wait for a thread that may
 * hold it. An operation that began before the region was taken away may still run after that, until
 * memory_region_destroy() returns.
 */
void memory_region_set_lockless(MemoryRegion *mr);

/*
 * A write of `size` bytes (0: of any size) at `addr` of an MMIO region adds 1 to the eventfd. With
 * match_data the value must be `data`. The operations are not called; any thread, without the big
 * lock. The region keeps a duplicate of fd. False: errp, nothing was added.
 */
bool memory_region_add_eventfd(MemoryRegion *mr, hwaddr addr, unsigned size, bool match_data,
                               uint64_t data, int fd, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The one that was added with the same values; there is one. */
void memory_region_del_eventfd(MemoryRegion *mr, hwaddr addr, unsigned size, bool match_data,
                               uint64_t data);

/*
 * Writes to [addr, addr + size) of an MMIO region may be collected (MemoryAccelOps in listener.h).
 * They reach the operations later, but in order and before any other access to the region.
 */
void memory_region_add_coalescing(MemoryRegion *mr, hwaddr addr, uint64_t size);
void memory_region_clear_coalescing(MemoryRegion *mr);

/*
 * Changes between the outermost begin and its commit take effect together, at the commit, with one
 * pass over the listeners.
 */
void memory_region_transaction_begin(void);
void memory_region_transaction_commit(void);

/* --- looking --- */

const char *memory_region_name(const MemoryRegion *mr);
/* Bytes; UINT64_MAX also for 2^64. */
uint64_t memory_region_size(const MemoryRegion *mr);
bool memory_region_is_ram(const MemoryRegion *mr);
bool memory_region_is_rom(const MemoryRegion *mr);
/* RAM: its first byte. */
void *memory_region_get_ram_ptr(const MemoryRegion *mr);
/* RAM and ROM devices: the block, which the region goes on owning. NULL otherwise. */
RAMBlock *memory_region_get_ram_block(const MemoryRegion *mr);
/* Whether an enabled subregion is placed over `addr` of the container. */
bool memory_region_present(MemoryRegion *container, hwaddr addr);
/* What the region is for people: "i/o", "ram", "rom", "romd". */
const char *memory_region_kind(const MemoryRegion *mr);

/* After writing RAM through the pointer: marks [addr, addr + size) of the region. Any thread. */
static inline void memory_region_set_dirty(const MemoryRegion *mr, hwaddr addr, uint64_t size)
{
    if (mr->ram_block) {
        ram_block_set_dirty(mr->ram_block, addr, size);
    }
}

/*
 * One access of `size` (1, 2, 4, 8) bytes to an MMIO region; data in host order. Accesses the
 * region does not permit, or outside of it, read as 0 and give MEMTX_DECODE_ERROR. Main thread, or
 * any for a lockless region.
 */
MemTxResult memory_region_dispatch_read(MemoryRegion *mr, hwaddr addr, uint64_t *data,
                                        unsigned size, MemTxAttrs attrs);
MemTxResult memory_region_dispatch_write(MemoryRegion *mr, hwaddr addr, uint64_t data,
                                         unsigned size, MemTxAttrs attrs);

#endif
