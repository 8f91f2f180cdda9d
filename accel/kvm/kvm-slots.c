/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A slot lives from the commit that adds it to the one that removes it:
 *
 *   region_add          a slot is made, and waits in `coming`
 *   region_del          a slot of `by_addr` is marked: it goes
 *   commit              what goes and comes again unchanged stays; then removals, then additions
 *   log_start, log_stop the flag of a slot, at once
 *
 * The log. KVM_GET_DIRTY_LOG reads the bits of a whole slot into `told`, and all of them get into
 * the block's bitmap, also those of pages outside the section that was asked for: log_clear may
 * then forget any page in `told`. Without manual protection reading forgets, and there is no
 * `told`.
 */
#include "accel/kvm/kvm-slots.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <string.h>
#include "util/error.h"
#include "util/page-bitmap.h"

#define PAGE ((uint64_t)TARGET_PAGE_SIZE)
/* A slot has less than 2^31 pages (KVM_MEM_MAX_NR_PAGES); a larger section gets several. */
#define SLOT_BYTES_MAX (UINT64_C(1) << 42)
/* Pages that one KVM_CLEAR_DIRTY_LOG names: KVM holds a lock of the machine for that long. */
#define CLEAR_PAGES (MEMORY_CLEAR_BYTES / TARGET_PAGE_SIZE)
#define NO_ID       UINT_MAX

typedef struct KVMSlot {
    unsigned id; /* without the address space; NO_ID: KVM has none for it */
    hwaddr addr;
    uint64_t bytes;
    RAMBlock *block; /* referenced */
    uint64_t offset; /* bytes into the block */
    bool readonly;
    bool logged;
    bool goes;      /* with the next commit */
    uint64_t *told; /* pages that the last reading of the log told of; NULL: never read */
} KVMSlot;

struct KVMSlots {
    MemoryListener listener;
    const KVMHost *host;
    unsigned as_id;
    KVMSlotsFailed *failed;
    void *opaque;
    /* The main thread changes these; the thread that reads the log looks at them meanwhile never. */
    GPtrArray *by_addr; /* slots in ascending order; they do not overlap */
    GPtrArray *coming;
    uint64_t *ids; /* a bit for each id that is in use */
    bool log_warned;
};

static KVMSlots *slots_of(MemoryListener *listener)
{
    return (KVMSlots *)listener;
}

static uint64_t slot_pages(const KVMSlot *slot)
{
    return slot->bytes / PAGE;
}

static void slot_free(void *opaque)
{
    KVMSlot *slot = opaque;

    ram_block_unref(slot->block);
    g_free(slot->told);
    g_free(slot);
}

/* --- KVM's side --- */

static int slot_set(const KVMSlots *slots, const KVMSlot *slot, uint64_t bytes)
{
    const struct kvm_userspace_memory_region region = {
        .slot = slots->as_id << 16 | slot->id,
        .flags = (slot->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0u) |
                 (slot->readonly ? KVM_MEM_READONLY : 0u),
        .guest_phys_addr = slot->addr,
        .memory_size = bytes,
        .userspace_addr = (uintptr_t)slot->block->host + slot->offset,
    };

    return kvm_vm_ioctl(slots->host, KVM_SET_USER_MEMORY_REGION, &region);
}

static void refused(const KVMSlots *slots, const KVMSlot *slot, const char *what, int error)
{
    g_autofree char *reason =
        g_strdup_printf("KVM does not %s the slot of %s at 0x%" PRIx64 " (%" PRIu64 " bytes): %s",
                        what, slot->block->idstr[0] ? slot->block->idstr : "memory", slot->addr,
                        slot->bytes, error == -ENOSPC ? "no slot is left" : strerror(-error));

    slots->failed(slots->opaque, reason);
}

static bool id_take(KVMSlots *slots, unsigned *id)
{
    uint64_t free_id = page_bitmap_find(slots->ids, 0, slots->host->slots, false);

    if (free_id == slots->host->slots) {
        return false;
    }
    page_bitmap_set(slots->ids, free_id, free_id + 1);
    *id = (unsigned)free_id;
    return true;
}

static void id_give(KVMSlots *slots, unsigned id)
{
    page_bitmap_clear(slots->ids, id, (uint64_t)id + 1);
}

static void slot_install(KVMSlots *slots, KVMSlot *slot)
{
    int ret = id_take(slots, &slot->id) ? slot_set(slots, slot, slot->bytes) : -ENOSPC;

    if (ret < 0) {
        if (slot->id != NO_ID) {
            id_give(slots, slot->id);
            slot->id = NO_ID;
        }
        refused(slots, slot, "make", ret);
    }
}

static void slot_remove(KVMSlots *slots, KVMSlot *slot)
{
    int ret;

    if (slot->id == NO_ID) {
        return;
    }
    ret = slot_set(slots, slot, 0);
    if (ret < 0) {
        refused(slots, slot, "remove", ret); /* its id stays in use */
        return;
    }
    id_give(slots, slot->id);
}

static void slot_set_logged(KVMSlots *slots, KVMSlot *slot, bool logged)
{
    int ret;

    if (slot->logged == logged) {
        return;
    }
    slot->logged = logged;
    g_clear_pointer(&slot->told, g_free); /* KVM starts a new log */
    ret = slot->id != NO_ID ? slot_set(slots, slot, slot->bytes) : 0;
    if (ret < 0) {
        refused(slots, slot, "change the log of", ret);
    }
}

/* --- finding --- */

/* The first slot that ends behind addr: an index, or the number of slots. */
static unsigned find_from(const KVMSlots *slots, hwaddr addr)
{
    unsigned low = 0, high = slots->by_addr->len;

    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        const KVMSlot *slot = slots->by_addr->pdata[mid];

        if (slot->addr + (slot->bytes - 1) < addr) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

typedef void SlotFn(KVMSlots *slots, KVMSlot *slot, const MemoryRegionSection *section);

/* Calls fn for each slot in which a part of the section lies. */
static void each_slot_of(KVMSlots *slots, const MemoryRegionSection *section, SlotFn *fn)
{
    hwaddr last = section->offset_within_address_space + (section->size - 1);

    if (!section->block) {
        return;
    }
    for (unsigned i = find_from(slots, section->offset_within_address_space);
         i < slots->by_addr->len; i++) {
        KVMSlot *slot = slots->by_addr->pdata[i];

        if (slot->addr > last) {
            return;
        }
        fn(slots, slot, section);
    }
}

/* --- the view changes --- */

static void mark_goes(KVMSlots *slots, KVMSlot *slot, const MemoryRegionSection *section)
{
    slot->goes = true;
}

static void region_del(MemoryListener *listener, const MemoryRegionSection *section)
{
    each_slot_of(slots_of(listener), section, mark_goes);
}

/*
 * What of a section can be a slot: whole pages of the guest and of the host. False: nothing. A ROM
 * that KVM cannot keep the guest from writing gets none either, its writes have to be exits.
 */
static bool slot_range(const KVMSlots *slots, const MemoryRegionSection *section, hwaddr *addr,
                       uint64_t *offset, uint64_t *bytes)
{
    uint64_t skip = -section->offset_within_address_space & (PAGE - 1);

    if (!section->block || section->size <= skip || (section->size - skip) < PAGE ||
        (section->readonly && !slots->host->readonly_slots)) {
        return false;
    }
    *addr = section->offset_within_address_space + skip;
    *offset = section->offset_within_region + skip;
    *bytes = (section->size - skip) & ~(PAGE - 1);
    return *offset % PAGE == 0;
}

static void region_add(MemoryListener *listener, const MemoryRegionSection *section)
{
    KVMSlots *slots = slots_of(listener);
    hwaddr addr;
    uint64_t offset, left;

    if (!slot_range(slots, section, &addr, &offset, &left)) {
        return;
    }
    while (left) {
        uint64_t bytes = MIN(left, SLOT_BYTES_MAX);
        KVMSlot *slot = g_new(KVMSlot, 1);

        ram_block_ref(section->block);
        *slot = (KVMSlot){.id = NO_ID,
                          .addr = addr,
                          .bytes = bytes,
                          .block = section->block,
                          .offset = offset,
                          .readonly = section->readonly,
                          .logged = section->log_mask != 0};
        g_ptr_array_add(slots->coming, slot);
        addr += bytes;
        offset += bytes;
        left -= bytes;
    }
}

/* A slot that goes, and that shows the same as one that comes: it stays. */
static KVMSlot *find_same(const KVMSlots *slots, const KVMSlot *coming)
{
    unsigned i = find_from(slots, coming->addr);
    KVMSlot *slot = i < slots->by_addr->len ? slots->by_addr->pdata[i] : NULL;

    if (!slot || !slot->goes || slot->addr != coming->addr || slot->bytes != coming->bytes ||
        slot->block != coming->block || slot->offset != coming->offset ||
        slot->readonly != coming->readonly) {
        return NULL;
    }
    return slot;
}

static int compare_slots(gconstpointer a, gconstpointer b)
{
    const KVMSlot *one = *(KVMSlot *const *)a, *other = *(KVMSlot *const *)b;

    return one->addr < other->addr ? -1 : one->addr > other->addr;
}

static void commit(MemoryListener *listener)
{
    KVMSlots *slots = slots_of(listener);

    for (unsigned i = slots->coming->len; i-- > 0;) {
        KVMSlot *coming = slots->coming->pdata[i], *same = find_same(slots, coming);

        if (same) {
            same->goes = false;
            slot_set_logged(slots, same, coming->logged);
            g_ptr_array_remove_index(slots->coming, i);
        }
    }
    for (unsigned i = slots->by_addr->len; i-- > 0;) {
        KVMSlot *slot = slots->by_addr->pdata[i];

        if (slot->goes) {
            slot_remove(slots, slot);
            g_ptr_array_remove_index(slots->by_addr, i);
        }
    }
    for (unsigned i = 0; i < slots->coming->len; i++) {
        slot_install(slots, slots->coming->pdata[i]);
    }
    g_ptr_array_extend_and_steal(slots->by_addr, g_steal_pointer(&slots->coming));
    slots->coming = g_ptr_array_new_with_free_func(slot_free);
    g_ptr_array_sort(slots->by_addr, compare_slots);
}

/* --- the log --- */

static void follow_mask(KVMSlots *slots, KVMSlot *slot, const MemoryRegionSection *section)
{
    slot_set_logged(slots, slot, section->log_mask != 0);
}

static void log_changed(MemoryListener *listener, const MemoryRegionSection *section, unsigned old,
                        unsigned mask)
{
    MemoryRegionSection now = *section;

    now.log_mask = mask;
    each_slot_of(slots_of(listener), &now, follow_mask);
}

/* Every page counts as written where KVM does not say. */
static void log_lost(KVMSlots *slots, const KVMSlot *slot, int error)
{
    if (!slots->log_warned) {
        slots->log_warned = true;
        warn_report("KVM does not tell what the guest wrote (%s): all memory counts as written",
                    strerror(-error));
    }
    page_bitmap_set(slot->told, 0, slot_pages(slot));
}

static void read_log(KVMSlots *slots, KVMSlot *slot, const MemoryRegionSection *section)
{
    struct kvm_dirty_log log = {.slot = slots->as_id << 16 | slot->id};
    int ret;

    if (!slot->logged || slot->readonly || slot->id == NO_ID) {
        return;
    }
    if (!slot->told) {
        slot->told = page_bitmap_try_new(slot_pages(slot));
    }
    if (!slot->told) {
        ram_block_set_dirty(slot->block, slot->offset, slot->bytes); /* and KVM keeps its log */
        return;
    }
    log.dirty_bitmap = slot->told;
    ret = kvm_vm_ioctl(slots->host, KVM_GET_DIRTY_LOG, &log);
    if (ret < 0) {
        log_lost(slots, slot, ret);
    }
    ram_block_set_dirty_bitmap(slot->block, slot->offset, slot->told, slot_pages(slot));
    if (!slots->host->log_protect || ret < 0) {
        page_bitmap_clear(slot->told, 0, slot_pages(slot));
    }
}

static void log_sync(MemoryListener *listener, const MemoryRegionSection *section)
{
    each_slot_of(slots_of(listener), section, read_log);
}

/*
 * Pages [from, end) of a slot; from is a multiple of 64, and so is end unless the slot ends there.
 * KVM forgets, and write-protects, the pages whose bits are set in `map`.
 */
static void forget(KVMSlots *slots, KVMSlot *slot, uint64_t *map, uint64_t from, uint64_t end)
{
    const struct kvm_clear_dirty_log log = {
        .slot = slots->as_id << 16 | slot->id,
        .num_pages = (uint32_t)(end - from),
        .first_page = from,
        .dirty_bitmap = map,
    };
    int ret;

    if (page_bitmap_find(map, 0, end - from, true) == end - from) {
        return;
    }
    ret = kvm_vm_ioctl(slots->host, KVM_CLEAR_DIRTY_LOG, &log);
    if (ret < 0 && !slots->log_warned) {
        slots->log_warned = true;
        warn_report("KVM does not forget what the guest wrote (%s): pages are sent again",
                    strerror(-ret));
    }
}

static void clear_log(KVMSlots *slots, KVMSlot *slot, const MemoryRegionSection *section)
{
    hwaddr first = MAX(section->offset_within_address_space, slot->addr);
    hwaddr last = MIN(section->offset_within_address_space + (section->size - 1),
                      slot->addr + (slot->bytes - 1));
    uint64_t map[CLEAR_PAGES / 64];
    uint64_t from, end;

    if (!slot->told || slot->id == NO_ID) {
        return;
    }
    /* A page that the section has in part was told of, and its client has taken it. */
    from = (first - slot->addr) / PAGE;
    end = (last - slot->addr) / PAGE + 1;
    while (from < end) {
        uint64_t base = from / 64 * 64;
        uint64_t stop = MIN(base + CLEAR_PAGES, end);
        uint64_t words_end = MIN((stop + 63) / 64 * 64, slot_pages(slot));

        memcpy(map, slot->told + base / 64, page_bitmap_words(words_end - base) * sizeof(map[0]));
        page_bitmap_clear(map, 0, from - base);
        if (stop < words_end) {
            page_bitmap_clear(map, stop - base, words_end - base);
        }
        forget(slots, slot, map, base, words_end);
        page_bitmap_clear(slot->told, from, stop);
        from = stop;
    }
}

static void log_clear(MemoryListener *listener, const MemoryRegionSection *section)
{
    each_slot_of(slots_of(listener), section, clear_log);
}

/* --- life --- */

KVMSlots *kvm_slots_new(const KVMHost *host, AddressSpace *as, unsigned as_id,
                        KVMSlotsFailed *failed, void *opaque)
{
    KVMSlots *slots = g_new0(KVMSlots, 1);

    g_assert(as_id < host->address_spaces);
    slots->host = host;
    slots->as_id = as_id;
    slots->failed = failed;
    slots->opaque = opaque;
    slots->by_addr = g_ptr_array_new_with_free_func(slot_free);
    slots->coming = g_ptr_array_new_with_free_func(slot_free);
    slots->ids = g_new0(uint64_t, page_bitmap_words(host->slots));
    slots->listener = (MemoryListener){
        .name = "kvm-slots",
        .runs_vcpus = true,
        .commit = commit,
        .region_add = region_add,
        .region_del = region_del,
        .log_start = log_changed,
        .log_stop = log_changed,
        .log_sync = log_sync,
        .log_clear = host->log_protect ? log_clear : NULL,
    };
    memory_listener_register(&slots->listener, as);
    return slots;
}

void kvm_slots_free(KVMSlots *slots)
{
    if (!slots) {
        return;
    }
    memory_listener_unregister(&slots->listener);
    g_ptr_array_unref(slots->by_addr);
    g_ptr_array_unref(slots->coming);
    g_free(slots->ids);
    g_free(slots);
}

unsigned kvm_slots_count(const KVMSlots *slots)
{
    return slots->by_addr->len;
}
