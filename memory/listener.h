/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory listeners: who follows what an address space looks like (KVM's memory slots, vhost), and
 * who knows more about writes than the processes' own marks (KVM's dirty log).
 *
 * A commit that changes the view of an address space calls, for each of its listeners: begin;
 * region_del for what has gone, by descending priority; then, the new view being in force,
 * region_add for what is new, region_nop for what stayed, with log_start or log_stop where logging
 * changed, by ascending priority; commit.
 *
 * The log_*() functions are called by the thread that asked (migration), the others by the main
 * thread; never two at a time, so none may begin a transaction or wait for a thread that does.
 */
#ifndef FERRY_MEMORY_LISTENER_H
#define FERRY_MEMORY_LISTENER_H

#include "memory/address-space.h"

/* A range of an address space, as listeners see it. Valid during the call. */
typedef struct MemoryRegionSection {
    AddressSpace *address_space;
    MemoryRegion *mr;            /* main thread only */
    RAMBlock *block;             /* RAM; NULL: MMIO */
    hwaddr offset_within_region; /* bytes; for RAM also the offset in the block */
    hwaddr offset_within_address_space;
    uint64_t size; /* bytes; 0 stands for 2^64 */
    bool readonly;
} MemoryRegionSection;

/* All members but `name` may be NULL. */
struct MemoryListener {
    const char *name;
    unsigned priority;
    void (*begin)(MemoryListener *listener);
    void (*commit)(MemoryListener *listener);
    void (*region_add)(MemoryListener *listener, const MemoryRegionSection *section);
    void (*region_del)(MemoryListener *listener, const MemoryRegionSection *section);
    void (*region_nop)(MemoryListener *listener, const MemoryRegionSection *section);
    /* The set of clients that log the section changes; masks of 1 << client. */
    void (*log_start)(MemoryListener *listener, const MemoryRegionSection *section, unsigned old,
                      unsigned mask);
    void (*log_stop)(MemoryListener *listener, const MemoryRegionSection *section, unsigned old,
                     unsigned mask);
    /* Puts what is known about writes to the section into ram_block_set_dirty_bitmap(). */
    void (*log_sync)(MemoryListener *listener, const MemoryRegionSection *section);
    /* The same for everything at once; called instead of log_sync where it is set. */
    void (*log_sync_global)(MemoryListener *listener, bool last_stage);
    /*
     * Forgets those writes to the section that the last log_sync told about, and only those: others
     * are of pages that nobody is about to read. From here on it reports what comes (KVM:
     * write-protects).
     */
    void (*log_clear)(MemoryListener *listener, const MemoryRegionSection *section);
    /* Some client logs everything; none does any more. */
    bool (*log_global_start)(MemoryListener *listener, GError **errp);
    void (*log_global_stop)(MemoryListener *listener);
    /* All listeners have synced. */
    void (*log_global_after_sync)(MemoryListener *listener);

    /* listener.c's. */
    AddressSpace *address_space;
    TAILQ_ENTRY(MemoryListener) link;
};

/* The listener is told what there is as if it had just been added. Main thread. */
void memory_listener_register(MemoryListener *listener, AddressSpace *as);
/* The listener is told that everything goes. Main thread. */
void memory_listener_unregister(MemoryListener *listener);

/*
 * Starts and stops logging of all RAM, present and to come, for the clients in the mask (1 <<
 * DIRTY_MEMORY_MIGRATION, 1 << DIRTY_MEMORY_RATE); counted for each client. False, with errp, when
 * a listener refuses: nothing is logged then. Any thread.
 */
bool memory_global_dirty_log_start(unsigned clients, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
void memory_global_dirty_log_stop(unsigned clients);
/* The clients that log everything now. Any thread. */
unsigned memory_global_dirty_log_clients(void);

/*
 * Brings the blocks' bitmaps up to date with what the listeners know. last_stage: the guest does
 * not run any more. Any thread.
 */
void memory_global_dirty_log_sync(bool last_stage);
/* The same for one region (a display's). Main thread. */
void memory_region_sync_dirty(MemoryRegion *mr);
/*
 * Before the pages of [offset, offset + bytes) are read by the client that took their dirty bits:
 * listeners forget them. Any thread.
 */
void ram_block_clear_log(RAMBlock *block, uint64_t offset, uint64_t bytes);

#endif
