/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is known of the target of a copy, granule by granule. Two lazily allocated bitmaps: an
 * untouched target costs nothing.
 */
#include "block/copy/copy.h"

void copy_map_init(CopyTargetMap *map, int64_t size, uint32_t granularity, bool zero_at_start)
{
    map->zero_at_start = zero_at_start;
    map->zero = hbitmap_new(size, granularity);
    map->data = hbitmap_new(size, granularity);
}

void copy_map_destroy(CopyTargetMap *map)
{
    if (map->zero) {
        hbitmap_free(map->zero);
        hbitmap_free(map->data);
        map->zero = map->data = NULL;
    }
}

CopyTargetState copy_map_get(const CopyTargetMap *map, int64_t offset, int64_t bytes, int64_t *pnum)
{
    uint64_t run;
    bool data = hbitmap_status(map->data, offset, bytes, &run);

    *pnum = (int64_t)run;
    if (data) {
        return COPY_TARGET_DATA;
    }
    if (map->zero_at_start) {
        return COPY_TARGET_ZERO;
    }
    bool zero = hbitmap_status(map->zero, offset, *pnum, &run);

    *pnum = (int64_t)run;
    return zero ? COPY_TARGET_ZERO : COPY_TARGET_UNKNOWN;
}

void copy_map_set_data(CopyTargetMap *map, int64_t offset, int64_t bytes)
{
    uint64_t granularity = hbitmap_granularity(map->data);
    uint64_t start = (uint64_t)offset & ~(granularity - 1);
    uint64_t end = MIN(hbitmap_size(map->data),
                       ((uint64_t)offset + bytes + granularity - 1) & ~(granularity - 1));

    hbitmap_set(map->data, offset, bytes);
    if (!hbitmap_empty(map->zero)) {
        hbitmap_reset(map->zero, start, end - start);
    }
}

void copy_map_set_zero(CopyTargetMap *map, int64_t offset, int64_t bytes)
{
    uint64_t granularity = hbitmap_granularity(map->data);
    uint64_t start = ((uint64_t)offset + granularity - 1) & ~(granularity - 1);
    uint64_t end = (uint64_t)offset + bytes;

    if (end < hbitmap_size(map->data)) {
        end &= ~(granularity - 1);
    }
    if (start >= end) {
        return;
    }
    if (!hbitmap_empty(map->data)) {
        hbitmap_reset(map->data, start, end - start);
    }
    if (!map->zero_at_start) {
        hbitmap_set(map->zero, start, end - start);
    }
}
