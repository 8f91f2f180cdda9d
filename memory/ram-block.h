/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RAM blocks: pieces of guest memory, each one mapping in this process, known to both sides of a
 * migration by name.
 *
 * A block is made with an anonymous mapping, or with a mapping of a file. It is in the list from
 * then on until its maker frees it. "Main thread" stands for the thread that holds the big lock
 * (util/bql.h). It is migrated when it has a name and RAM_MIGRATABLE. The main thread makes, names,
 * resizes and frees blocks. Any thread may take the list, look blocks up, hold references, and read
 * and write a block's memory. The memory stays mapped until the last reference is dropped.
 *
 * Granules of everything that counts pages are target pages of 4 KiB.
 */
#ifndef FERRY_MEMORY_RAM_BLOCK_H
#define FERRY_MEMORY_RAM_BLOCK_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "memory/dirty.h"
#include "memory/hwaddr.h"

/* Most bytes of a name: its length is one byte in the stream. */
#define RAM_BLOCK_NAME_MAX 255

/* RAMBlock.flags. All but MIGRATABLE and NAMED are constant. */
enum {
    RAM_SHARED = 1u << 0,     /* the mapping is shared: other users of the file see writes */
    RAM_RESIZEABLE = 1u << 1, /* used_length may change, up to max_length */
    RAM_MIGRATABLE = 1u << 2, /* part of a migration */
    RAM_NAMED_FILE = 1u << 3, /* of a file with a path: another process can open the same */
    RAM_READONLY = 1u << 4,   /* the mapping can't be written; neither can the guest */
    RAM_DEVICE = 1u << 5,     /* memory of a device: never migrated, never scanned */
    RAM_NORESERVE = 1u << 6,  /* no swap is reserved for it */
    RAM_NAMED = 1u << 7,      /* idstr is set */
    RAM_ZEROED = 1u << 8, /* was all zero bytes when it was made: untouched pages read as zero */
};

typedef struct RAMBlock RAMBlock;

struct RAMBlock {
    /* Constant. */
    uint8_t *host; /* max_length bytes, aligned to page_size */
    uint64_t
        max_length;   /* bytes, whole 4 KiB pages; the mapping goes on to a multiple of page_size */
    size_t page_size; /* bytes of one host page of the mapping: 4 KiB, or that of hugetlbfs */
    ram_addr_t offset;  /* where it lies in ram_addr_t space, disjoint from all others */
    int fd;             /* of the mapped file, owned; -1: anonymous */
    uint64_t fd_offset; /* bytes into the file where the mapping starts */

    /* Written by the main thread, read by any, atomically (the functions below do that). */
    uint64_t used_length; /* bytes the guest has; 1..max_length, page aligned */
    uint32_t flags;       /* RAM_* */
    /*
     * "" until named. Other threads read it only of blocks from a list, or after RAM_NAMED was
     * seen.
     */
    char idstr[RAM_BLOCK_NAME_MAX + 1];

    /* dirty.c's. */
    unsigned log_mask; /* atomic: 1 << client for each that logs writes to the block */
    uint64_t *dirty[DIRTY_MEMORY_NUM]; /* atomic: a bit for each page; NULL until first logged */
    unsigned log_all; /* clients that log it because they log all blocks; under dirty.c's lock */
    unsigned log_users[DIRTY_MEMORY_NUM]; /* under dirty.c's lock */

    /* ram-block.c's. */
    int refs;     /* atomic */
    bool foreign; /* the mapping belongs to another object */
    /* Called by the main thread after used_length has changed. */
    void (*resized)(void *opaque, RAMBlock *block, uint64_t old_length);
    void *resized_opaque;
};

static inline uint64_t ram_block_used_length(const RAMBlock *block)
{
    return __atomic_load_n(&block->used_length, __ATOMIC_ACQUIRE);
}

/* max_length and what is left of its last host page. */
static inline uint64_t ram_block_mapped_bytes(const RAMBlock *block)
{
    return (block->max_length + block->page_size - 1) & ~(uint64_t)(block->page_size - 1);
}

static inline uint32_t ram_block_flags(const RAMBlock *block)
{
    return __atomic_load_n(&block->flags, __ATOMIC_ACQUIRE);
}

/* Has a name, and goes with the guest when that migrates. */
static inline bool ram_block_is_migratable(const RAMBlock *block)
{
    const uint32_t want = RAM_NAMED | RAM_MIGRATABLE;

    return (ram_block_flags(block) & (want | RAM_DEVICE)) == want;
}

/* What a block is made of. */
typedef struct RAMBlockOptions {
    const char *what;   /* "ram": names it in errors */
    uint64_t size;      /* bytes, above 0; rounded up to whole pages */
    uint64_t max_size;  /* with RAM_RESIZEABLE: bytes it may grow to; else 0 */
    uint32_t flags;     /* RAM_SHARED, RESIZEABLE, READONLY, NORESERVE, NAMED_FILE, DEVICE */
    int fd;             /* file to map, taken over even on failure; -1: anonymous */
    uint64_t fd_offset; /* a multiple of the file's page size */
    size_t align;       /* least alignment of the mapping; 0: the page size */
    bool fd_zeroed;     /* the file was made for this block: every page of it is a hole */
    bool no_hugepages;  /* no transparent huge pages; otherwise they are asked for */
    bool no_dump;       /* keep it out of core dumps */
    bool merge;         /* let the kernel share identical pages (KSM) */
} RAMBlockOptions;

/*
 * Makes a block of zero bytes (or of what the file holds), without a name, in the list, with one
 * reference for the caller. NULL, with the size and the cause in errp: nothing was made.
 */
RAMBlock *ram_block_new(const RAMBlockOptions *options, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The same around memory that its owner has mapped, and unmaps after the block has gone. */
RAMBlock *ram_block_new_from_ptr(const char *what, void *host, uint64_t size, uint32_t flags,
                                 GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The maker's end of it: out of the list, and one reference less. Main thread. */
void ram_block_free(RAMBlock *block);
/* Any thread. */
void ram_block_ref(RAMBlock *block);
void ram_block_unref(RAMBlock *block);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RAMBlock, ram_block_unref)

/*
 * Names it, which makes it known to migration. Fails when another has that name, or it is too long.
 */
bool ram_block_set_idstr(RAMBlock *block, const char *name,
                         GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Takes the name away; the block is found no more. */
void ram_block_unset_idstr(RAMBlock *block);
void ram_block_set_migratable(RAMBlock *block, bool migratable);

/* What wants to know that used_length has changed: a region that shows the block. */
void ram_block_set_resized(RAMBlock *block,
                           void (*resized)(void *opaque, RAMBlock *block, uint64_t old_length),
                           void *opaque);
/*
 * Changes the used length; only a RAM_RESIZEABLE block can get another one than it has, and no more
 * than max_length. Bytes beyond the new end are dropped and read as zero. Main thread.
 */
bool ram_block_resize(RAMBlock *block, uint64_t length, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* --- the list --- */

/*
 * All blocks at one moment, in the order in which migration sends them: largest max_length first,
 * older first among equals. Blocks without a name are in it. Immutable; each block in it is
 * referenced.
 */
typedef struct RAMBlockList {
    uint64_t generation; /* grows whenever a block comes, goes, or gets or loses its name */
    unsigned n;
    int refs;
    RAMBlock *blocks[];
} RAMBlockList;

/* Any thread. The caller ends with ram_block_list_unref(). */
RAMBlockList *ram_block_list_get(void) G_GNUC_WARN_UNUSED_RESULT;
void ram_block_list_unref(RAMBlockList *list);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RAMBlockList, ram_block_list_unref)
/* The current list's; any thread. */
uint64_t ram_block_list_generation(void);

/* In a list: NULL when there is none of that name. */
RAMBlock *ram_block_list_find(const RAMBlockList *list, const char *name);

/*
 * Lookups in the current list, by any thread; the caller owns a reference to the result. NULL:
 * none.
 */
RAMBlock *ram_block_by_name(const char *name) G_GNUC_WARN_UNUSED_RESULT;
/* The block whose max_length bytes hold *host; *offset receives where. */
RAMBlock *ram_block_from_host(const void *host, uint64_t *offset) G_GNUC_WARN_UNUSED_RESULT;
/*
 * The same for memory the caller holds a reference to, though its block may have been freed since.
 */
RAMBlock *ram_block_from_mapping(const void *host, uint64_t *offset) G_GNUC_WARN_UNUSED_RESULT;
RAMBlock *ram_block_from_ram_addr(ram_addr_t addr, uint64_t *offset) G_GNUC_WARN_UNUSED_RESULT;

/* The sum of used lengths of what is migrated, bytes. Any thread. */
uint64_t ram_block_bytes_total(void);

/*
 * Makes [offset, offset + bytes) of the block read as zero and gives the host's memory back where
 * that is possible: MADV_DONTNEED, or a hole in a file that is mapped shared. Both are multiples of
 * page_size, within the mapping. 0 or -errno; -EINVAL for a private mapping of a file, which can't
 * be made zero that way. Any thread.
 */
int ram_block_discard(RAMBlock *block, uint64_t offset, uint64_t bytes) G_GNUC_WARN_UNUSED_RESULT;

#endif
