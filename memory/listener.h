/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory listeners. A listener follows the layout of an address space (KVM's memory slots, vhost),
 * or knows of writes that the process itself does not mark (KVM's dirty log).
 *
 * A commit that changes the view of an address space calls its listeners in this order:
 *
 *     begin
 *     log_sync for each logged section that goes, or one log_sync_global
 *     eventfd_del, coalesced_del; region_del for what has gone, by descending priority
 *     (the new view is in force)
 *     region_add for what is new, region_nop for what stayed, with log_start or log_stop where the
 *     logging of what stayed has changed, by ascending priority; eventfd_add, coalesced_add
 *     commit
 *
 * A listener that keeps slots applies the changes in region_del and region_add, or collects them
 * and applies them in commit, the removals first.
 *
 * Logs. What a log knows about a section goes into the bitmaps before region_del. A section that is
 * added carries its log mask, so that its slot logs from the beginning: no log_start follows. No
 * write of a vCPU gets lost between the two. Where a logged section goes, or RAM appears where RAM
 * went, vCPUs are held out of the guest from before the first log_sync until after commit. This
 * happens if one of the listeners says that its slots are what vCPUs run on
 * (memory_set_accel_ops()).
 *
 * The thread that asks (migration) calls the log_*() functions; the main thread calls the others.
 * Never two at a time, so none may begin a transaction or wait for a thread that does.
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
    bool romd;         /* readonly, and writes go to the region's operations */
    unsigned log_mask; /* 1 << client for each that logs it; of a section that goes: that did */
} MemoryRegionSection;

/* All members but `name` may be NULL. */
struct MemoryListener {
    const char *name;
    unsigned priority;
    bool runs_vcpus; /* vCPUs run on what it makes of the sections */
    void (*begin)(MemoryListener *listener);
    void (*commit)(MemoryListener *listener);
    void (*region_add)(MemoryListener *listener, const MemoryRegionSection *section);
    void (*region_del)(MemoryListener *listener, const MemoryRegionSection *section);
    void (*region_nop)(MemoryListener *listener, const MemoryRegionSection *section);
    /* The set of clients that log a section which stays changes; masks of 1 << client. */
    void (*log_start)(MemoryListener *listener, const MemoryRegionSection *section, unsigned old,
                      unsigned mask);
    void (*log_stop)(MemoryListener *listener, const MemoryRegionSection *section, unsigned old,
                     unsigned mask);
    /*
     * Passes the writes to the section that the log has recorded to ram_block_set_dirty_bitmap().
     */
    void (*log_sync)(MemoryListener *listener, const MemoryRegionSection *section);
    /*
     * The same for everything at once; called instead of log_sync where it is set (a dirty ring).
     * The caller may hold the big lock. The function waits at most until each vCPU has left guest
     * mode. It never waits for a vCPU that is in user space: that vCPU may itself wait for the big
     * lock or for the caller. A vCPU whose ring is full reaps it alone: the listener keeps what it
     * needs for that (slots, with references to their blocks) under a lock of its own.
     */
    void (*log_sync_global)(MemoryListener *listener, bool last_stage);
    /*
     * Forgets those writes to the section that the last log_sync told about, and only those: others
     * are of pages that no client is about to read. From here on the listener reports new writes
     * (KVM: write-protects).
     */
    void (*log_clear)(MemoryListener *listener, const MemoryRegionSection *section);
    /*
     * An eventfd that a write to `addr` of the space signals, and a part of an MMIO section whose
     * writes may be collected. Each is added and taken away as a whole. The descriptor of the event
     * is valid from the one call to the other.
     */
    void (*eventfd_add)(MemoryListener *listener, hwaddr addr, const MemoryEventFd *event);
    void (*eventfd_del)(MemoryListener *listener, hwaddr addr, const MemoryEventFd *event);
    void (*coalesced_add)(MemoryListener *listener, hwaddr addr, uint64_t size);
    void (*coalesced_del)(MemoryListener *listener, hwaddr addr, uint64_t size);
    /* A client begins to log everything; the last one ends. */
    bool (*log_global_start)(MemoryListener *listener, GError **errp);
    void (*log_global_stop)(MemoryListener *listener);
    /* All listeners have synced. */
    void (*log_global_after_sync)(MemoryListener *listener);

    /* listener.c's. */
    AddressSpace *address_space;
    TAILQ_ENTRY(MemoryListener) link;
};

/*
 * What an accelerator does for memory/. Set by the main thread; NULL: there is none (qtest).
 *
 * shut() returns when no vCPU is in guest mode and none enters it until open(). It does not wait
 * for vCPUs that are in user space. Called by the main thread, in pairs that do not nest.
 *
 * flush_coalesced() (may be NULL) delivers the writes that were collected, by address_space_write().
 * Called with the big lock held: before an operation of a region with coalesced ranges runs in user
 * space, and before regions change. Not called while it runs.
 */
typedef struct MemoryAccelOps {
    void (*shut)(void *opaque);
    void (*open)(void *opaque);
    void (*flush_coalesced)(void *opaque);
    void *opaque;
} MemoryAccelOps;
void memory_set_accel_ops(const MemoryAccelOps *ops);

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
 * For a client that took the dirty bits of [offset, offset + bytes), before it reads the pages. The
 * listeners forget the pages, in pieces of at most MEMORY_CLEAR_BYTES; between two pieces, views
 * may change. Any thread.
 */
#define MEMORY_CLEAR_BYTES (UINT64_C(64) << 20)
void ram_block_clear_log(RAMBlock *block, uint64_t offset, uint64_t bytes);

#endif
