/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bitmaps of pages: bit i % 64 of word i / 64 (host order) is page i. Ranges are [from, end).
 *
 * Two flavours of setting: plain for a bitmap that one thread owns, atomic where several threads set
 * bits of the same word.
 */
#ifndef FERRY_UTIL_PAGE_BITMAP_H
#define FERRY_UTIL_PAGE_BITMAP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

static inline size_t page_bitmap_words(uint64_t pages)
{
    return (pages + 63) / 64;
}

/* All bits clear; NULL when there is no memory for it. The caller frees with g_free(). */
static inline uint64_t *page_bitmap_try_new(uint64_t pages)
{
    return g_try_new0(uint64_t, MAX(page_bitmap_words(pages), 1));
}

/* The bits of a range that are in the word of `from`; the range is not empty. */
static inline uint64_t page_bitmap_mask(uint64_t from, uint64_t end)
{
    uint64_t n = MIN(end - from, 64 - from % 64);

    return (n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX) << from % 64;
}

/* The first page of the word behind that of `page`. */
static inline uint64_t page_bitmap_next_word(uint64_t page)
{
    return (page / 64 + 1) * 64;
}

static inline bool page_bitmap_test(const uint64_t *map, uint64_t page)
{
    return map[page / 64] >> page % 64 & 1;
}

/* The first page of the range whose bit is `value`; `end` if there is none. */
static inline uint64_t page_bitmap_find(const uint64_t *map, uint64_t from, uint64_t end,
                                        bool value)
{
    const uint64_t flip = value ? 0 : UINT64_MAX;

    while (from < end) {
        uint64_t word = (map[from / 64] ^ flip) & page_bitmap_mask(from, end);

        if (word) {
            return from / 64 * 64 + (unsigned)__builtin_ctzll(word);
        }
        from = page_bitmap_next_word(from);
    }
    return end;
}

static inline void page_bitmap_set(uint64_t *map, uint64_t from, uint64_t end)
{
    for (; from < end; from = page_bitmap_next_word(from)) {
        map[from / 64] |= page_bitmap_mask(from, end);
    }
}

static inline void page_bitmap_clear(uint64_t *map, uint64_t from, uint64_t end)
{
    for (; from < end; from = page_bitmap_next_word(from)) {
        map[from / 64] &= ~page_bitmap_mask(from, end);
    }
}

/*
 * The same for bits of words that several threads set. The order is relaxed: what has to be seen
 * together with a bit needs a barrier of its own.
 */
static inline void page_bitmap_set_atomic(uint64_t *map, uint64_t from, uint64_t end)
{
    for (; from < end; from = page_bitmap_next_word(from)) {
        __atomic_fetch_or(&map[from / 64], page_bitmap_mask(from, end), __ATOMIC_RELAXED);
    }
}

static inline void page_bitmap_clear_atomic(uint64_t *map, uint64_t from, uint64_t end)
{
    for (; from < end; from = page_bitmap_next_word(from)) {
        uint64_t mask = page_bitmap_mask(from, end);

        if (__atomic_load_n(&map[from / 64], __ATOMIC_RELAXED) & mask) { /* a store costs more */
            __atomic_fetch_and(&map[from / 64], ~mask, __ATOMIC_RELAXED);
        }
    }
}

static inline bool page_bitmap_test_atomic(const uint64_t *map, uint64_t page)
{
    return __atomic_load_n(&map[page / 64], __ATOMIC_RELAXED) >> page % 64 & 1;
}

#endif
