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

enum device_endian {
    DEVICE_NATIVE_ENDIAN, /* of the guest: little */
    DEVICE_BIG_ENDIAN,
    DEVICE_LITTLE_ENDIAN,
};

/*
 * What a device does at an address inside its region. Sizes are 1, 2, 4 or 8 bytes; zero members
 * have the defaults that stand beside them. `size` bytes at `addr` always lie inside the region.
 */
typedef struct MemoryRegionOps {
    /* Either these two, */
    uint64_t (*read)(void *opaque, hwaddr addr, unsigned size);
    void (*write)(void *opaque, hwaddr addr, uint64_t data, unsigned size);
    /* or these: with attributes, and able to fail. */
    MemTxResult (*read_with_attrs)(void *opaque, hwaddr addr, uint64_t *data, unsigned size,
                                   MemTxAttrs attrs);
    MemTxResult (*write_with_attrs)(void *opaque, hwaddr addr, uint64_t data, unsigned size,
                                    MemTxAttrs attrs);
    enum device_endian endianness;
    /* What the guest may do; anything else ends with MEMTX_DECODE_ERROR. */
    struct {
        unsigned min_access_size; /* 1 */
        unsigned max_access_size; /* 4; longer transfers are split */
        bool unaligned;           /* false: addresses are multiples of the size */
        bool (*accepts)(void *opaque, hwaddr addr, unsigned size, bool is_write, MemTxAttrs attrs);
    } valid;
    /* What the functions above can do: other permitted accesses are split or widened. */
    struct {
        unsigned min_access_size; /* 1 */
        unsigned max_access_size; /* 4 */
        bool unaligned;
    } impl;
} MemoryRegionOps;

TAILQ_HEAD(MemoryRegionList, MemoryRegion);

/* Members are memory.c's; others read them through the functions below. */
struct MemoryRegion {
    char *name;
    char *owner; /* path of an object; NULL: nobody's */
    unsigned __int128 size;
    const MemoryRegionOps *ops; /* MMIO; NULL: RAM, container, alias */
    void *opaque;
    void (*resized)(void *opaque, uint64_t length, void *host);
    RAMBlock *ram_block; /* RAM; owned unless borrowed */
    bool ram_borrowed;
    bool readonly; /* the guest can't write */
    bool enabled;
    bool initialized;
    unsigned log_mask; /* 1 << client: what this region's owner logs */

    MemoryRegion *alias;
    hwaddr alias_offset;

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
/* Shows a block that somebody else owns, all of it. RAM_READONLY makes it read-only. */
void memory_region_init_ram_from_block(MemoryRegion *mr, const char *owner, const char *name,
                                       RAMBlock *block);
/* A window of `orig` that starts at `offset` in it. `orig` outlives mr. */
void memory_region_init_alias(MemoryRegion *mr, const char *owner, const char *name,
                              MemoryRegion *orig, hwaddr offset, uint64_t size);
/* mr is in no container, has no subregions, and no transaction is open. Frees its RAM. */
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
/* RAM: whether `client` (DIRTY_MEMORY_VGA) logs writes to it. Not counted. */
void memory_region_set_log(MemoryRegion *mr, bool log, unsigned client);

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
/* RAM: its block, which the region goes on owning. NULL otherwise. */
RAMBlock *memory_region_get_ram_block(const MemoryRegion *mr);
/* Whether an enabled subregion is placed over `addr` of the container. */
bool memory_region_present(MemoryRegion *container, hwaddr addr);
/* What the region is for people: "i/o", "ram", "rom". */
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
 * region does not permit, or outside of it, read as 0 and give MEMTX_DECODE_ERROR. Main thread.
 */
MemTxResult memory_region_dispatch_read(MemoryRegion *mr, hwaddr addr, uint64_t *data,
                                        unsigned size, MemTxAttrs attrs);
MemTxResult memory_region_dispatch_write(MemoryRegion *mr, hwaddr addr, uint64_t data,
                                         unsigned size, MemTxAttrs attrs);

#endif
