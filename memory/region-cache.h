/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A piece of guest memory that one thread looks at again and again: a virtqueue's ring.
 *
 * While the address space stays as it was, an access is a comparison of generations and a load or
 * store in the host's memory: no lookup, no lock, no reference. After a change the next access
 * looks the address up anew. A range that is not one piece of RAM is accessed like any other
 * address.
 *
 * A cache belongs to one thread at a time. It holds the RAM block that it last saw, and so its
 * memory, until it is used again or destroyed.
 */
#ifndef FERRY_MEMORY_REGION_CACHE_H
#define FERRY_MEMORY_REGION_CACHE_H

#include "memory/address-space.h"
#include "util/bswap.h"

typedef struct MemoryRegionCache {
    AddressSpace *as;
    hwaddr addr;
    uint64_t len;
    bool is_write;
    uint64_t generation; /* of `as`, when the following was true */
    uint8_t *host;       /* of addr; NULL: not one piece of RAM */
    RAMBlock *block;     /* referenced; NULL: none */
    uint64_t offset;     /* of addr in the block */
} MemoryRegionCache;

/* [addr, addr + len), len above 0. is_write: stores are possible as well. `as` outlives it. */
void address_space_cache_init(MemoryRegionCache *cache, AddressSpace *as, hwaddr addr, uint64_t len,
                              bool is_write);
void address_space_cache_destroy(MemoryRegionCache *cache);

/* Looks the address up anew. */
void address_space_cache_refresh(MemoryRegionCache *cache);

/*
 * The host's address of `size` bytes at `offset`, for accesses until the thread may have seen a
 * change of the space: a few lines, not a request. NULL: use read and write. An offset outside of
 * the cache gives NULL; read and write then access the address space there.
 */
static inline void *address_space_cache_host(MemoryRegionCache *cache, uint64_t offset,
                                             uint64_t size)
{
    if (G_UNLIKELY(__atomic_load_n(&cache->as->generation, __ATOMIC_ACQUIRE) !=
                   cache->generation)) {
        address_space_cache_refresh(cache);
    }
    if (G_UNLIKELY(!cache->host || size > cache->len || offset > cache->len - size)) {
        return NULL;
    }
    return cache->host + offset;
}

/* Any length; parts of it are not in order. */
MemTxResult address_space_read_cached(MemoryRegionCache *cache, uint64_t offset, void *buf,
                                      uint64_t size);
MemTxResult address_space_write_cached(MemoryRegionCache *cache, uint64_t offset, const void *buf,
                                       uint64_t size);

/*
 * Single values: an aligned one is read or written in one piece. Loads are in order with later
 * accesses of the thread, and stores with earlier ones (acquire, release), which is what the used
 * and available index of a ring need.
 */
#define MEMORY_REGION_CACHE_VALUE(bits, ld, st, to_cpu, from_cpu)                                \
    static inline uint##bits##_t address_space_##ld##_cached(MemoryRegionCache *cache,           \
                                                             uint64_t offset)                    \
    {                                                                                            \
        void *host = address_space_cache_host(cache, offset, bits / 8);                          \
        uint##bits##_t value = 0;                                                                \
                                                                                                 \
        if (G_LIKELY(host && !((uintptr_t)host % (bits / 8)))) {                                 \
            value = __atomic_load_n((uint##bits##_t *)host, __ATOMIC_ACQUIRE);                   \
        } else {                                                                                 \
            (void)address_space_read_cached(cache, offset, &value, sizeof(value));               \
        }                                                                                        \
        return to_cpu(value);                                                                    \
    }                                                                                            \
    static inline void address_space_##st##_cached(MemoryRegionCache *cache, uint64_t offset,    \
                                                   uint##bits##_t value)                         \
    {                                                                                            \
        void *host = cache->is_write ? address_space_cache_host(cache, offset, bits / 8) : NULL; \
                                                                                                 \
        value = from_cpu(value);                                                                 \
        if (G_LIKELY(host && !((uintptr_t)host % (bits / 8)))) {                                 \
            __atomic_store_n((uint##bits##_t *)host, value, __ATOMIC_RELEASE);                   \
            ram_block_set_dirty(cache->block, cache->offset + offset, sizeof(value));            \
        } else {                                                                                 \
            (void)address_space_write_cached(cache, offset, &value, sizeof(value));              \
        }                                                                                        \
    }

MEMORY_REGION_CACHE_VALUE(8, ldub, stb, , )
MEMORY_REGION_CACHE_VALUE(16, lduw_le, stw_le, le16_to_cpu, cpu_to_le16)
MEMORY_REGION_CACHE_VALUE(32, ldl_le, stl_le, le32_to_cpu, cpu_to_le32)
MEMORY_REGION_CACHE_VALUE(64, ldq_le, stq_le, le64_to_cpu, cpu_to_le64)
MEMORY_REGION_CACHE_VALUE(16, lduw_be, stw_be, be16_to_cpu, cpu_to_be16)
MEMORY_REGION_CACHE_VALUE(32, ldl_be, stl_be, be32_to_cpu, cpu_to_be32)
MEMORY_REGION_CACHE_VALUE(64, ldq_be, stq_be, be64_to_cpu, cpu_to_be64)
#undef MEMORY_REGION_CACHE_VALUE

#endif
