/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory at the destination: which pages have arrived, and putting bytes into them.
 *
 * A page that never arrived and was never touched here reads as zero, so a zero page that comes for it
 * only has to be noted: untouched memory stays unallocated. What was touched is looked up once, when the
 * load begins. A write of this process after that (the reset of a machine loads its ROMs again) is found
 * at the end, among the pages that were only noted, by ram_recv_settle().
 *
 * Every page goes through one place, ram_recv_put() or ram_recv_zero(), or into memory directly where
 * ram_recv_takes_in_place(). RAMPlace says what these two do.
 *
 * Threads: made and freed by the incoming thread; channels' threads use it in between. Two threads
 * never put the same page at a time: the source separates them by barriers (and if a hostile one does
 * not, the guest's memory is garbled, nothing else).
 */
#ifndef FERRY_MIGRATION_RAM_RECEIVE_H
#define FERRY_MIGRATION_RAM_RECEIVE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "memory/ram-block.h"
#include "migration/options.h"

typedef struct RAMRecv RAMRecv;

typedef struct RAMRecvBlock {
    RAMRecv *recv;
    RAMBlock *block;    /* referenced */
    bool ignored;       /* the source has the same file: no pages come */
    bool mapped;        /* its part of a mapped-ram file has been read */
    uint64_t pages;     /* of max_length */
    uint64_t *received; /* bit i: page i has arrived; atomic */
    uint64_t *touched;  /* bit i: page i may hold something else than zero from before; constant */
    uint64_t *noted;    /* bit i: page i came as zero and was not looked at; atomic */
    bool by_write;      /* pages are put by ram_recv_put(), which writes to the file; atomic */
} RAMRecvBlock;

/*
 * Puts n pages from `data`, NULL: zeroes. False with an error. The thread that has read them, without the
 * big lock.
 */
typedef bool RAMPlaceFunc(void *opaque, RAMRecvBlock *rb, uint64_t page, uint64_t n,
                          const void *data, GError **errp);

/*
 * Where pages go that do not simply go into memory. A guest that runs already must see each page
 * whole and once. A second guest's memory takes them later from a cache.
 */
typedef struct RAMPlace {
    RAMPlaceFunc *func; /* NULL: guest memory */
    void *opaque;
    /*
     * Only whole pages of the host are placed, which may be larger than those of the stream. They are
     * gathered: their parts come in order, in one thread.
     */
    bool whole_host_pages;
} RAMPlace;

struct RAMRecv {
    unsigned n;
    RAMRecvBlock *blocks;
    RAMPlace place; /* changed while no page is on its way */
    struct {
        RAMRecvBlock *rb;
        uint64_t first, n; /* pages that are there; n is 0: none is begun */
        bool zero;         /* all of them are */
        uint8_t *bytes;    /* of the largest host page; NULL: not needed so far */
    } gathered;            /* the beginning of a host page */
};

/* All blocks that migrate; finds the pages that were never touched. NULL with an error. */
RAMRecv *ram_recv_new(const MigrationSettings *settings, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
void ram_recv_free(RAMRecv *recv); /* NULL is allowed */

/* The block that a stream means; NULL with an error: there is none, or its pages may not come. */
RAMRecvBlock *ram_recv_find(RAMRecv *recv, const char *name, GError **errp);
/* Whether [offset, offset + bytes), whole pages, is in the block's used length; else an error. */
bool ram_recv_check(const RAMRecvBlock *rb, uint64_t offset, uint64_t bytes, GError **errp);

/*
 * Where pages go from now on; NULL: into guest memory again. Between two sections, after
 * ram_recv_settle().
 */
void ram_recv_set_place(RAMRecv *recv, const RAMPlace *place);

/* How many pages from `page` on are zero and untouched: at most max, 0 if it is not itself. */
uint64_t ram_recv_fresh(const RAMRecvBlock *rb, uint64_t page, uint64_t max);
/* The bytes of these pages are in guest memory. */
void ram_recv_mark(RAMRecvBlock *rb, uint64_t page, uint64_t n);
/*
 * Whether pages are better read into a buffer and then put than read into place. That holds for
 * memory that is a file. There write(2) fills a new page of the file once. A store through the
 * mapping has the kernel take a fault and clear the page first.
 */
bool ram_recv_is_by_write(const RAMRecvBlock *rb);
/*
 * Puts the bytes of n pages, and notes that they have arrived. Memory that cannot be written must
 * hold these bytes already. False with an error; the pages' content is undefined then.
 */
bool ram_recv_put(RAMRecvBlock *rb, uint64_t page, uint64_t n, const void *data,
                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* These pages are zero. Also notes that they have arrived. False: the memory can't be written. */
bool ram_recv_zero(RAMRecvBlock *rb, uint64_t page, uint64_t n,
                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * All pages have come: clears those that came as zero and were written here since the load began. Takes
 * milliseconds a GiB of which pages came as zero. False: the memory can't be written.
 */
bool ram_recv_settle(RAMRecv *recv, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Memory that is mapped without the right to write: bytes that come for it must be the ones that are
 * there. ram_recv_put() does what is right for each.
 */
bool ram_recv_is_readonly(const RAMRecvBlock *rb);
/*
 * Bytes may be read, or decoded, straight into block->host; ram_recv_mark() notes it. Otherwise each page
 * goes through ram_recv_put() and ram_recv_zero().
 */
bool ram_recv_takes_in_place(const RAMRecvBlock *rb);
bool ram_recv_compare(RAMRecvBlock *rb, uint64_t page, const void *data,
                      GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
