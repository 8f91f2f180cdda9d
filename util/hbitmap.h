/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HBitmap: a bitmap over a range of bytes with summary levels above it. So the cost of finding the
 * next dirty extent grows with the number of extents and not with the size of the range.
 *
 * One bit covers `granularity` bytes (a power of two). Offsets and lengths are bytes; a set rounds
 * outwards to whole granules and a reset must be aligned to granules (the end of the range
 * excepted). Levels are allocated lazily: an untouched 1 TiB range costs next to nothing. Not
 * locked: one thread, or the caller's lock.
 */
#ifndef FERRY_UTIL_HBITMAP_H
#define FERRY_UTIL_HBITMAP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct HBitmap HBitmap;

/* All clean; `size` in bytes, granularity a power of two >= 1. */
HBitmap *hbitmap_new(uint64_t size, uint32_t granularity);
void hbitmap_free(HBitmap *hb);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HBitmap, hbitmap_free)

uint64_t hbitmap_size(const HBitmap *hb);
uint32_t hbitmap_granularity(const HBitmap *hb);
/* Dirty bytes: dirty granules times granularity, less what hangs over the end. O(1). */
uint64_t hbitmap_count(const HBitmap *hb);
bool hbitmap_empty(const HBitmap *hb);

bool hbitmap_get(const HBitmap *hb, uint64_t offset);
void hbitmap_set(HBitmap *hb, uint64_t offset, uint64_t bytes);
void hbitmap_reset(HBitmap *hb, uint64_t offset, uint64_t bytes);
void hbitmap_reset_all(HBitmap *hb);
/* Grows (clean) or shrinks. */
void hbitmap_truncate(HBitmap *hb, uint64_t size);

/* First dirty/clean byte in [offset, offset + bytes), or -1. */
int64_t hbitmap_next_dirty(const HBitmap *hb, uint64_t offset, uint64_t bytes);
int64_t hbitmap_next_zero(const HBitmap *hb, uint64_t offset, uint64_t bytes);
/*
 * The first dirty run that starts in [start, end), cut at max_bytes and at end. False when there is
 * none.
 */
bool hbitmap_next_dirty_area(const HBitmap *hb, uint64_t start, uint64_t end, uint64_t max_bytes,
                             uint64_t *dirty_start, uint64_t *dirty_bytes);
/* Whether `offset` is dirty; *pnum is how many bytes from there, at most `bytes`, are the same. */
bool hbitmap_status(const HBitmap *hb, uint64_t offset, uint64_t bytes, uint64_t *pnum);

/* dst |= src; sizes are equal, granularities may differ. */
void hbitmap_merge(HBitmap *dst, const HBitmap *src);
HBitmap *hbitmap_clone(const HBitmap *hb);

/*
 * Little-endian image of the lowest level, one bit a granule, as bitmaps are stored in qcow2 and
 * sent in migration. The range [offset, offset+bytes) must be aligned to
 * hbitmap_serialization_align(), except at the end.
 */
uint64_t hbitmap_serialization_align(const HBitmap *hb);
uint64_t hbitmap_serialization_size(const HBitmap *hb, uint64_t offset, uint64_t bytes);
void hbitmap_serialize_part(const HBitmap *hb, uint8_t *buf, uint64_t offset, uint64_t bytes);
void hbitmap_deserialize_part(HBitmap *hb, const uint8_t *buf, uint64_t offset, uint64_t bytes);

#endif
