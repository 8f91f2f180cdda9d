/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XBZRLE: the code, and the cache of pages that were sent. */
#include "migration/xbzrle.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "util/bswap.h"
#include "util/error.h"

#define PAGE_BITS  12
#define PAGE_BYTES (UINT64_C(1) << PAGE_BITS)
/* The largest run that two bytes can say. */
#define VARINT_MAX 16383
/* Equal bytes in the midst of others that are sent again: to say that they stay costs as much. */
#define GAP_MIN 3

/* --- the code --- */

/* The first byte at or after `at` that differs; size: none. */
static size_t find_different(const uint8_t *a, const uint8_t *b, size_t at, size_t size)
{
    while (at + 8 <= size) {
        uint64_t diff = ldq_le_p(a + at) ^ ldq_le_p(b + at);

        if (diff) {
            return at + (unsigned)__builtin_ctzll(diff) / 8;
        }
        at += 8;
    }
    while (at < size && a[at] == b[at]) {
        at++;
    }
    return at;
}

/* The first of at least GAP_MIN equal bytes (or equal ones up to the end) at or after `at`. */
static size_t find_gap(const uint8_t *a, const uint8_t *b, size_t at, size_t size)
{
    size_t equal = 0;

    for (; at < size && equal < GAP_MIN; at++) {
        equal = a[at] == b[at] ? equal + 1 : 0;
    }
    return at - equal;
}

static size_t varint_size(size_t v)
{
    return v < 128 ? 1 : 2;
}

static uint8_t *put_varint(uint8_t *out, size_t v)
{
    if (v >= 128) {
        *out++ = (uint8_t)(v & 0x7f) | 0x80;
        v >>= 7;
    }
    *out++ = (uint8_t)v;
    return out;
}

int xbzrle_encode(const uint8_t *old, const uint8_t *page, size_t size, uint8_t *out,
                  size_t out_size)
{
    uint8_t *to = out;
    size_t at = 0;

    g_assert(size <= VARINT_MAX);
    for (;;) {
        size_t from = find_different(old, page, at, size), end, need;

        if (from == size) {
            return (int)(to - out);
        }
        end = find_gap(old, page, from, size);
        need = varint_size(from - at) + varint_size(end - from) + (end - from);
        if (need > out_size - (size_t)(to - out)) {
            return -1;
        }
        to = put_varint(to, from - at);
        to = put_varint(to, end - from);
        memcpy(to, page + from, end - from);
        to += end - from;
        at = end;
    }
}

/* Moves *in on. False: cut short, or more than two bytes. */
static bool get_varint(const uint8_t **in, const uint8_t *end, size_t *v)
{
    if (*in == end) {
        return false;
    }
    *v = *(*in)++;
    if (*v < 128) {
        return true;
    }
    if (*in == end || **in >= 128) {
        return false;
    }
    *v = (*v & 0x7f) | (size_t) * (*in)++ << 7;
    return true;
}

bool xbzrle_decode(const uint8_t *in, size_t in_size, uint8_t *page, size_t size)
{
    const uint8_t *end = in + in_size;
    size_t at = 0, n;

    for (bool first = true; in < end; first = false) {
        if (!get_varint(&in, end, &n) || (!n && !first) || n > size - at) {
            return false;
        }
        at += n;
        if (!get_varint(&in, end, &n) || !n || n > size - at || n > (size_t)(end - in)) {
            return false;
        }
        memcpy(page + at, in, n);
        in += n;
        at += n;
    }
    return true;
}

/* --- the cache --- */

typedef struct CacheEntry {
    uint64_t addr;
    uint32_t used_in; /* the last pass in which it was looked for; 0: empty */
} CacheEntry;

struct XBZRLECache {
    uint64_t n; /* a power of two */
    CacheEntry *entries;
    uint8_t *pages; /* n pages; those never used take no memory */
    uint32_t pass;  /* from 1 */
    uint64_t tried; /* the size that was asked for last, in bytes */

    /* The counters when the pass began. */
    uint64_t pages_before, bytes_before, miss_before;
};

/* Places for n pages. */
static bool allocate(XBZRLECache *cache, uint64_t n, GError **errp)
{
    cache->n = n;
    /* what is too large for the address space is refused here, whatever the allocator makes of it */
    cache->pages = mmap(NULL, n << PAGE_BITS, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cache->entries = cache->pages == MAP_FAILED ? NULL : g_try_new0(CacheEntry, n);
    if (cache->pages == MAP_FAILED || !cache->entries) {
        error_setg(errp, "Not enough memory for an XBZRLE cache of %" PRIu64 " bytes",
                   n << PAGE_BITS);
        cache->pages = cache->pages == MAP_FAILED ? NULL : cache->pages;
        return false;
    }
    return true;
}

static void release(XBZRLECache *cache)
{
    if (cache->pages) {
        munmap(cache->pages, cache->n << PAGE_BITS);
    }
    g_free(cache->entries);
}

static uint64_t places(uint64_t bytes)
{
    return UINT64_C(1) << (63 - __builtin_clzll(MAX(bytes >> PAGE_BITS, 1)));
}

XBZRLECache *xbzrle_cache_new(uint64_t bytes, GError **errp)
{
    XBZRLECache *cache = g_new0(XBZRLECache, 1);

    cache->pass = 1;
    cache->tried = bytes;
    if (!allocate(cache, places(bytes), errp)) {
        xbzrle_cache_free(cache);
        return NULL;
    }
    return cache;
}

void xbzrle_cache_free(XBZRLECache *cache)
{
    if (cache) {
        release(cache);
        g_free(cache);
    }
}

uint64_t xbzrle_cache_bytes(const XBZRLECache *cache)
{
    return cache->n << PAGE_BITS;
}

static uint64_t place_of(const XBZRLECache *cache, uint64_t addr)
{
    return addr >> PAGE_BITS & (cache->n - 1);
}

uint8_t *xbzrle_cache_find(XBZRLECache *cache, uint64_t addr)
{
    uint64_t i = place_of(cache, addr);
    CacheEntry *entry = &cache->entries[i];

    if (!entry->used_in || entry->addr != addr) {
        return NULL;
    }
    entry->used_in = cache->pass;
    return cache->pages + (i << PAGE_BITS);
}

uint8_t *xbzrle_cache_insert(XBZRLECache *cache, uint64_t addr)
{
    uint64_t i = place_of(cache, addr);
    CacheEntry *entry = &cache->entries[i];

    /* Two pages that fight for a place would both miss for ever: the first stays while it is used. */
    if (entry->used_in && entry->addr != addr && cache->pass - entry->used_in < 2) {
        return NULL;
    }
    entry->addr = addr;
    entry->used_in = cache->pass;
    return cache->pages + (i << PAGE_BITS);
}

/* The page that was used last has the place. */
static void move_entry(XBZRLECache *to, const XBZRLECache *from, uint64_t i)
{
    const CacheEntry *entry = &from->entries[i];
    uint64_t j = place_of(to, entry->addr);

    if (entry->used_in > to->entries[j].used_in) {
        to->entries[j] = *entry;
        memcpy(to->pages + (j << PAGE_BITS), from->pages + (i << PAGE_BITS), PAGE_BYTES);
    }
}

void xbzrle_cache_resize(XBZRLECache *cache, uint64_t bytes)
{
    XBZRLECache old = *cache;
    GError *err = NULL;

    if (bytes == cache->tried) {
        return;
    }
    cache->tried = old.tried = bytes;
    if (places(bytes) == cache->n) {
        return;
    }
    if (!allocate(cache, places(bytes), &err)) {
        warn_report("%s; it stays as it is", err->message);
        g_error_free(err);
        release(cache);
        *cache = old;
        return;
    }
    for (uint64_t i = 0; i < old.n; i++) {
        move_entry(cache, &old, i);
    }
    release(&old);
}

void xbzrle_cache_next_pass(XBZRLECache *cache, MigrationState *s)
{
    MigrationCounters *c = &s->counters;
    uint64_t pages = stat64_get(&c->xbzrle_pages), bytes = stat64_get(&c->xbzrle_bytes);
    uint64_t miss = stat64_get(&c->xbzrle_cache_miss);
    uint64_t encoded = pages - cache->pages_before, missed = miss - cache->miss_before;

    cache->pass++;
    g_mutex_lock(&s->lock);
    if (encoded + missed) {
        c->xbzrle_cache_miss_rate = (double)missed / (double)(encoded + missed);
    }
    if (bytes > cache->bytes_before) {
        c->xbzrle_encoding_rate =
            (double)(encoded << PAGE_BITS) / (double)(bytes - cache->bytes_before);
    }
    g_mutex_unlock(&s->lock);
    cache->pages_before = pages;
    cache->bytes_before = bytes;
    cache->miss_before = miss;
}
