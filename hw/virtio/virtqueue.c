/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtqueues: elements, mapping, and what both formats have in common. */
#include "hw/virtio/virtqueue.h"

#include <inttypes.h>
#include <string.h>
#include "hw/virtio/virtqueue-int.h"

/* Arrays of an element: at first, and at most while it is in the pool. */
#define ROOM_FIRST 8u
#define ROOM_KEPT  128u

bool virtqueue_break(VirtQueue *vq, const char *format, ...)
{
    g_autofree char *reason = NULL;
    va_list ap;

    if (__atomic_exchange_n(&vq->host->broken, true, __ATOMIC_SEQ_CST)) {
        return false;
    }
    va_start(ap, format);
    reason = g_strdup_vprintf(format, ap);
    va_end(ap);
    if (vq->host->on_broken) {
        vq->host->on_broken(vq->host->opaque, vq, reason);
    }
    return false;
}

static bool is_broken(const VirtQueue *vq)
{
    return __atomic_load_n(&vq->host->broken, __ATOMIC_ACQUIRE);
}

/* --- elements --- */

static VirtQueueElement *take_element(VirtQueue *vq)
{
    VirtQueueElement *elem = vq->pool;

    if (!elem) {
        elem = g_malloc0(vq->element_size);
        elem->room = ROOM_FIRST;
        elem->iov = g_new(struct iovec, elem->room);
        elem->maps = g_new(DMAMapping, elem->room);
    } else {
        vq->pool = elem->next_free;
    }
    elem->out_num = elem->in_num = 0;
    elem->out_bytes = elem->in_bytes = 0;
    return elem;
}

static void set_room(VirtQueueElement *elem, unsigned room)
{
    elem->room = room;
    elem->iov = g_renew(struct iovec, elem->iov, room);
    elem->maps = g_renew(DMAMapping, elem->maps, room);
}

/* Unmaps the pieces, of whose writable ones `written` bytes are dirty, and puts the element into the pool. */
static void release_element(VirtQueue *vq, VirtQueueElement *elem, uint64_t written)
{
    for (unsigned i = 0; i < elem->out_num + elem->in_num; i++) {
        uint64_t here = i < elem->out_num ? 0 : MIN(written, elem->maps[i].len);

        written -= here;
        (void)dma_unmap(&elem->maps[i], here);
    }
    if (elem->room > ROOM_KEPT) {
        set_room(elem, ROOM_KEPT);
    }
    elem->next_free = vq->pool;
    vq->pool = elem;
}

/* "Message Framing": writable descriptors follow readable ones. */
bool virtqueue_add(VirtQueue *vq, VirtQueueElement *elem, const VirtQueueDesc *desc)
{
    bool writable = desc->flags & VIRTQ_DESC_F_WRITE;
    hwaddr addr = desc->addr;
    uint64_t left = desc->len;

    if (!left) {
        return virtqueue_break(vq, "a descriptor has no bytes");
    }
    if (addr > UINT64_MAX - (left - 1)) {
        return virtqueue_break(vq, "a buffer of 0x%" PRIx64 " bytes at 0x%" PRIx64 " wraps", left,
                               addr);
    }
    if (!writable && elem->in_num) {
        return virtqueue_break(vq, "a readable descriptor follows a writable one");
    }
    for (uint64_t len; left; addr += len, left -= len) {
        unsigned n = elem->out_num + elem->in_num;

        if (n == VIRTQUEUE_PIECES_MAX) {
            return virtqueue_break(vq, "a request has more than %u pieces", VIRTQUEUE_PIECES_MAX);
        }
        if (n == elem->room) {
            set_room(elem, MIN(2 * n, VIRTQUEUE_PIECES_MAX));
        }
        if (!dma_map_ram(&elem->maps[n], vq->host->as, addr, left,
                         writable ? DMA_DIRECTION_FROM_DEVICE : DMA_DIRECTION_TO_DEVICE,
                         MEMTXATTRS_UNSPECIFIED)) {
            return virtqueue_break(vq, "a buffer at 0x%" PRIx64 " is not RAM", addr);
        }
        len = elem->maps[n].len;
        elem->iov[n] = (struct iovec){.iov_base = elem->maps[n].host, .iov_len = len};
        *(writable ? &elem->in_num : &elem->out_num) += 1;
        *(writable ? &elem->in_bytes : &elem->out_bytes) += len;
    }
    return true;
}

/* --- indirect tables --- */

bool virtqueue_table_open(VirtQueue *vq, VirtQueueTable *table, const VirtQueueDesc *desc)
{
    if (!virtqueue_has(vq, VIRTIO_F_INDIRECT_DESC)) {
        return virtqueue_break(vq, "an indirect table without VIRTIO_F_INDIRECT_DESC");
    }
    if (!desc->len || desc->len % VIRTQ_DESC_BYTES ||
        desc->len / VIRTQ_DESC_BYTES > VIRTQUEUE_TABLE_MAX ||
        desc->addr > UINT64_MAX - (desc->len - 1)) {
        return virtqueue_break(vq, "an indirect table of 0x%" PRIx32 " bytes at 0x%" PRIx64,
                               desc->len, desc->addr);
    }
    table->addr = desc->addr;
    table->n = desc->len / VIRTQ_DESC_BYTES;
    if (!dma_map_ram(&table->map, vq->host->as, desc->addr, desc->len, DMA_DIRECTION_TO_DEVICE,
                     MEMTXATTRS_UNSPECIFIED)) {
        return virtqueue_break(vq, "an indirect table at 0x%" PRIx64 " is not RAM", desc->addr);
    }
    return true;
}

bool virtqueue_table_read(VirtQueue *vq, VirtQueueTable *table, unsigned i, void *raw)
{
    uint64_t at = (uint64_t)i * VIRTQ_DESC_BYTES;

    if (at + VIRTQ_DESC_BYTES <= table->map.len) {
        memcpy(raw, (char *)table->map.host + at, VIRTQ_DESC_BYTES);
        return true;
    }
    for (uint64_t done = 0; done < VIRTQ_DESC_BYTES;) {
        DMAMapping map;
        uint64_t len;

        if (!dma_map_ram(&map, vq->host->as, table->addr + at + done, VIRTQ_DESC_BYTES - done,
                         DMA_DIRECTION_TO_DEVICE, MEMTXATTRS_UNSPECIFIED)) {
            return virtqueue_break(vq, "an indirect table at 0x%" PRIx64 " is not RAM",
                                   table->addr);
        }
        len = map.len;
        memcpy((char *)raw + done, map.host, len);
        done += len;
        (void)dma_unmap(&map, 0);
    }
    return true;
}

void virtqueue_table_close(VirtQueueTable *table)
{
    (void)dma_unmap(&table->map, 0);
}

/* --- starting and stopping --- */

void virtqueue_init(VirtQueue *vq, VirtQueueHost *host, uint16_t size_max, size_t element_size)
{
    g_assert(size_max <= VIRTQUEUE_SIZE_MAX && element_size >= sizeof(VirtQueueElement));
    *vq = (VirtQueue){.host = host, .size_max = size_max, .element_size = element_size};
    virtqueue_reset(vq);
}

void virtqueue_destroy(VirtQueue *vq)
{
    g_assert(!vq->running && !vq->in_flight);
    while (vq->pool) {
        VirtQueueElement *elem = vq->pool;

        vq->pool = elem->next_free;
        g_free(elem->iov);
        g_free(elem->maps);
        g_free(elem);
    }
}

void virtqueue_reset(VirtQueue *vq)
{
    g_assert(!vq->running && !vq->in_flight);
    vq->size = vq->size_max;
    vq->desc = vq->driver = vq->device = 0;
    vq->next_avail = vq->next_used = vq->seen_avail = 0;
    vq->avail_wrap = vq->used_wrap = true;
    vq->unsignalled = 0;
}

static bool area_fits(hwaddr addr, uint64_t bytes)
{
    return addr <= UINT64_MAX - (bytes - 1);
}

bool virtqueue_start(VirtQueue *vq, uint64_t features)
{
    uint64_t bytes[3];

    g_assert(!vq->running);
    vq->features = features;
    vq->format = virtqueue_has(vq, VIRTIO_F_RING_PACKED) ? &virtqueue_packed : &virtqueue_split;
    if (!vq->size || vq->size > vq->size_max || !vq->format->size_fits(vq->size)) {
        return virtqueue_break(vq, "a queue cannot have %u entries", vq->size);
    }
    /* A driver stopped the queue and starts it without a reset: the places and the requests are those of before. */
    if (vq->format == &virtqueue_packed && MAX(vq->next_avail, vq->next_used) >= vq->size) {
        return virtqueue_break(vq, "a queue of %u entries goes on at places %u and %u", vq->size,
                               vq->next_avail, vq->next_used);
    }
    if (vq->in_flight) {
        return virtqueue_break(vq, "a queue starts again while requests are in flight");
    }
    vq->format->areas(vq, bytes);
    if (!area_fits(vq->desc, bytes[0]) || !area_fits(vq->driver, bytes[1]) ||
        !area_fits(vq->device, bytes[2])) {
        return virtqueue_break(vq, "a ring wraps");
    }
    address_space_cache_init(&vq->desc_ring, vq->host->as, vq->desc, bytes[0],
                             vq->format == &virtqueue_packed);
    address_space_cache_init(&vq->driver_ring, vq->host->as, vq->driver, bytes[1], false);
    address_space_cache_init(&vq->device_ring, vq->host->as, vq->device, bytes[2], true);
    vq->seen_avail = vq->next_avail;
    vq->running = vq->wants_kicks = vq->notify_next = true;
    return true;
}

void virtqueue_stop(VirtQueue *vq)
{
    if (vq->running) {
        vq->running = false;
        address_space_cache_destroy(&vq->desc_ring);
        address_space_cache_destroy(&vq->driver_ring);
        address_space_cache_destroy(&vq->device_ring);
    }
}

bool virtqueue_is_running(const VirtQueue *vq)
{
    return vq->running;
}

/* --- the rings --- */

/* A ring of several ranges of RAM has no single address in the host, and is good all the same. */
static bool is_ram(MemoryRegionCache *cache)
{
    return G_LIKELY(address_space_cache_host(cache, 0, cache->len)) ||
           address_space_access_valid(cache->as, cache->addr, cache->len, cache->is_write);
}

static bool can_serve(VirtQueue *vq)
{
    if (!vq->running || is_broken(vq)) {
        return false;
    }
    return (is_ram(&vq->desc_ring) && is_ram(&vq->driver_ring) && is_ram(&vq->device_ring)) ||
           virtqueue_break(vq, "a ring is not RAM");
}

/* Where nothing is there, the driver is asked to kick before the last look. */
static bool find_request(VirtQueue *vq)
{
    if (vq->format->available(vq)) {
        return true;
    }
    if (!vq->wants_kicks || is_broken(vq)) {
        return false;
    }
    vq->format->ask(vq, true);
    __atomic_thread_fence(
        __ATOMIC_SEQ_CST); /* pairs with the driver's, between its entry and its look */
    return vq->format->available(vq);
}

VirtQueueElement *virtqueue_pop(VirtQueue *vq)
{
    VirtQueueElement *elem;

    if (!can_serve(vq) || !find_request(vq)) {
        return NULL;
    }
    elem = take_element(vq);
    if (!vq->format->take(vq, elem)) {
        release_element(vq, elem, 0);
        return NULL;
    }
    elem->out = elem->iov;
    elem->in = elem->iov + elem->out_num;
    vq->in_flight += elem->descriptors;
    return elem;
}

bool virtqueue_empty(VirtQueue *vq)
{
    return !can_serve(vq) || !vq->format->available(vq);
}

void virtqueue_push_many(VirtQueue *vq, VirtQueueElement *const *elems, const uint64_t *written,
                         unsigned n)
{
    bool serves = can_serve(vq);

    /* Buffers are marked dirty before the driver sees them as used. What an element says stays in the pool. */
    for (unsigned i = 0; i < n; i++) {
        g_assert(vq->in_flight >= elems[i]->descriptors);
        vq->in_flight -= elems[i]->descriptors;
        vq->unsignalled += serves ? elems[i]->descriptors : 0;
        release_element(vq, elems[i], written[i]);
    }
    if (serves && n) {
        vq->format->put(vq, elems, written, n);
    }
}

void virtqueue_push(VirtQueue *vq, VirtQueueElement *elem, uint64_t written)
{
    virtqueue_push_many(vq, &elem, &written, 1);
}

void virtqueue_unpop(VirtQueue *vq, VirtQueueElement *elem)
{
    vq->format->untake(vq, elem);
    virtqueue_drop(vq, elem);
}

void virtqueue_drop(VirtQueue *vq, VirtQueueElement *elem)
{
    g_assert(vq->in_flight >= elem->descriptors);
    vq->in_flight -= elem->descriptors;
    release_element(vq, elem, 0);
}

/* --- notifications --- */

bool virtqueue_should_notify(VirtQueue *vq)
{
    unsigned moved = vq->unsignalled;
    bool first = vq->notify_next;

    if (!moved || !can_serve(vq)) {
        return false;
    }
    vq->unsignalled = 0;
    vq->notify_next = false;
    __atomic_thread_fence(
        __ATOMIC_SEQ_CST); /* the driver asks, then looks for used entries once more */
    return vq->format->asked(vq, first ? UINT16_MAX : MIN(moved, UINT16_MAX));
}

void virtqueue_set_notification(VirtQueue *vq, bool wanted)
{
    vq->wants_kicks = wanted;
    if (can_serve(vq)) {
        vq->format->ask(vq, wanted);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
}
