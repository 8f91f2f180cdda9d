/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HBitmap: a tree with a fan-out of 64 over the granules.
 *
 * A leaf (level 0) has 64 words of 64 bits; a node of level n has 64 slots, each for a node of
 * level n - 1. Two summary words a node hold one bit a slot:
 *
 *   any  rest  the slot is
 *    0    1    clean: no bit set, nothing allocated below
 *    1    0    full: every bit set, nothing allocated below
 *    1    1    mixed: child[] (or word[]) has the details
 *
 * Invariants. A mixed slot's node is neither clean nor full: it is folded into its parent's summary
 * when it becomes so. node->count is the number of set bits below it. Bits past the last granule
 * are never set. Hence memory and search cost follow the number of places where the value changes,
 * whether most of the range is clean or dirty. A search visits at most two nodes a level.
 *
 * Granule numbers inside the recursive functions are relative to the node's first granule.
 */
#include "util/hbitmap.h"

#include <string.h>

#define FANOUT_BITS 6
#define FANOUT      (1 << FANOUT_BITS)
#define ALL_SLOTS   UINT64_MAX

typedef struct HBNode HBNode;
struct HBNode {
    uint64_t count;
    uint64_t any;
    uint64_t rest;
    union {
        uint64_t word[FANOUT]; /* level 0; always valid */
        HBNode *child[FANOUT]; /* other levels; NULL unless the slot is mixed */
    };
};

struct HBitmap {
    uint64_t size;
    uint64_t granules;
    unsigned shift; /* log2(granularity) */
    unsigned level; /* of the root */
    HBNode *root;   /* always there, the only node that may be clean or full */
};

typedef enum SlotState { SLOT_CLEAN, SLOT_FULL, SLOT_MIXED } SlotState;

static inline unsigned slot_shift(unsigned level)
{
    return FANOUT_BITS * (level + 1);
}

/* Granules that one slot of a node of this level covers. */
static inline uint64_t slot_span(unsigned level)
{
    return UINT64_C(1) << slot_shift(level);
}

static inline SlotState slot_state(const HBNode *node, unsigned slot)
{
    if (!(node->any >> slot & 1)) {
        return SLOT_CLEAN;
    }
    return node->rest >> slot & 1 ? SLOT_MIXED : SLOT_FULL;
}

static inline void slot_set_state(HBNode *node, unsigned slot, SlotState state)
{
    uint64_t bit = UINT64_C(1) << slot;

    node->any = state == SLOT_CLEAN ? node->any & ~bit : node->any | bit;
    node->rest = state == SLOT_FULL ? node->rest & ~bit : node->rest | bit;
}

/* A node whose granules are all set, or all clear. */
static HBNode *node_new(unsigned level, bool full)
{
    HBNode *node = g_new0(HBNode, 1);

    if (!full) {
        node->rest = ALL_SLOTS;
        return node;
    }
    node->any = ALL_SLOTS;
    node->count = (uint64_t)FANOUT << slot_shift(level);
    if (level == 0) {
        memset(node->word, 0xff, sizeof(node->word));
    }
    return node;
}

static void node_free(HBNode *node, unsigned level)
{
    if (level > 0) {
        for (uint64_t mixed = node->any & node->rest; mixed; mixed &= mixed - 1) {
            node_free(node->child[__builtin_ctzll(mixed)], level - 1);
        }
    }
    g_free(node);
}

static HBNode *node_clone(const HBNode *node, unsigned level)
{
    HBNode *copy = g_new(HBNode, 1);

    *copy = *node;
    if (level > 0) {
        for (uint64_t mixed = node->any & node->rest; mixed; mixed &= mixed - 1) {
            unsigned slot = __builtin_ctzll(mixed);

            copy->child[slot] = node_clone(node->child[slot], level - 1);
        }
    }
    return copy;
}

/* Bits set in a slot of a node above level 0. */
static uint64_t slot_count(const HBNode *node, unsigned level, unsigned slot)
{
    switch (slot_state(node, slot)) {
    case SLOT_CLEAN:
        return 0;
    case SLOT_FULL:
        return slot_span(level);
    case SLOT_MIXED:
        break;
    }
    return node->child[slot]->count;
}

static void leaf_set_word(HBNode *leaf, unsigned slot, uint64_t word)
{
    leaf->count += __builtin_popcountll(word);
    leaf->count -= __builtin_popcountll(leaf->word[slot]);
    leaf->word[slot] = word;
    slot_set_state(leaf, slot, word == 0 ? SLOT_CLEAN : word == ALL_SLOTS ? SLOT_FULL : SLOT_MIXED);
}

/* Makes a whole slot of a node above level 0 clean or full. */
static void slot_fill(HBNode *node, unsigned level, unsigned slot, bool value)
{
    node->count -= slot_count(node, level, slot);
    if (slot_state(node, slot) == SLOT_MIXED) {
        node_free(node->child[slot], level - 1);
        node->child[slot] = NULL;
    }
    slot_set_state(node, slot, value ? SLOT_FULL : SLOT_CLEAN);
    node->count += value ? slot_span(level) : 0;
}

/*
 * The node below a slot, made if the slot was uniform. The caller changes it, then calls
 * slot_fold().
 */
static HBNode *slot_unfold(HBNode *node, unsigned level, unsigned slot)
{
    if (slot_state(node, slot) != SLOT_MIXED) {
        node->child[slot] = node_new(level - 1, slot_state(node, slot) == SLOT_FULL);
        slot_set_state(node, slot, SLOT_MIXED);
    }
    node->count -= node->child[slot]->count;
    return node->child[slot];
}

static void slot_fold(HBNode *node, unsigned level, unsigned slot)
{
    uint64_t count = node->child[slot]->count;

    node->count += count;
    if (count == 0 || count == slot_span(level)) {
        slot_fill(node, level, slot, count > 0);
    }
}

/* Sets or clears granules first..last, both included. */
static void node_change(HBNode *node, unsigned level, uint64_t first, uint64_t last, bool value)
{
    unsigned shift = slot_shift(level);
    uint64_t mask = slot_span(level) - 1;
    unsigned first_slot = first >> shift, last_slot = last >> shift;

    for (unsigned slot = first_slot; slot <= last_slot; slot++) {
        uint64_t lo = slot == first_slot ? first & mask : 0;
        uint64_t hi = slot == last_slot ? last & mask : mask;

        if (slot_state(node, slot) == (value ? SLOT_FULL : SLOT_CLEAN)) {
            continue;
        }
        if (level == 0) {
            uint64_t bits = ALL_SLOTS >> (63 - hi) & ALL_SLOTS << lo;

            leaf_set_word(node, slot, value ? node->word[slot] | bits : node->word[slot] & ~bits);
        } else if (lo == 0 && hi == mask) {
            slot_fill(node, level, slot, value);
        } else {
            node_change(slot_unfold(node, level, slot), level - 1, lo, hi, value);
            slot_fold(node, level, slot);
        }
    }
}

/* The first granule >= first whose bit is `value`. */
static bool node_find(const HBNode *node, unsigned level, uint64_t first, bool value,
                      uint64_t *found)
{
    unsigned shift = slot_shift(level);
    unsigned first_slot = first >> shift;
    uint64_t slots = (value ? node->any : node->rest) & ALL_SLOTS << first_slot;

    for (; slots; slots &= slots - 1) {
        unsigned slot = __builtin_ctzll(slots);
        uint64_t from = slot == first_slot ? first & (slot_span(level) - 1) : 0;
        uint64_t pos;

        if (slot_state(node, slot) != SLOT_MIXED) {
            pos = from;
        } else if (level == 0) {
            uint64_t bits = (value ? node->word[slot] : ~node->word[slot]) & ALL_SLOTS << from;

            if (!bits) {
                continue;
            }
            pos = __builtin_ctzll(bits);
        } else if (!node_find(node->child[slot], level - 1, from, value, &pos)) {
            continue;
        }
        *found = ((uint64_t)slot << shift) + pos;
        return true;
    }
    return false;
}

/* dst |= src; both of the same level. */
static void node_merge(HBNode *dst, const HBNode *src, unsigned level)
{
    for (uint64_t slots = src->any; slots; slots &= slots - 1) {
        unsigned slot = __builtin_ctzll(slots);

        if (slot_state(dst, slot) == SLOT_FULL) {
            continue;
        }
        if (level == 0) {
            leaf_set_word(dst, slot, dst->word[slot] | src->word[slot]);
        } else if (slot_state(src, slot) == SLOT_FULL) {
            slot_fill(dst, level, slot, true);
        } else {
            node_merge(slot_unfold(dst, level, slot), src->child[slot], level - 1);
            slot_fold(dst, level, slot);
        }
    }
}

/* Bits 64 * index and following, whatever their value; 0 past the end. */
static uint64_t hbitmap_get_word(const HBitmap *hb, uint64_t index)
{
    const HBNode *node = hb->root;

    for (unsigned level = hb->level;; level--) {
        unsigned slot = index >> (slot_shift(level) - FANOUT_BITS) & (FANOUT - 1);

        switch (slot_state(node, slot)) {
        case SLOT_CLEAN:
            return 0;
        case SLOT_FULL:
            return ALL_SLOTS;
        case SLOT_MIXED:
            break;
        }
        if (level == 0) {
            return node->word[slot];
        }
        node = node->child[slot];
    }
}

static void node_set_word(HBNode *node, unsigned level, uint64_t index, uint64_t word)
{
    unsigned slot = index >> (slot_shift(level) - FANOUT_BITS) & (FANOUT - 1);

    if (level == 0) {
        leaf_set_word(node, slot, word);
        return;
    }
    if (slot_state(node, slot) == SLOT_CLEAN && word == 0) {
        return;
    }
    if (slot_state(node, slot) == SLOT_FULL && word == ALL_SLOTS) {
        return;
    }
    node_set_word(slot_unfold(node, level, slot), level - 1, index, word);
    slot_fold(node, level, slot);
}

static uint64_t granules_of(const HBitmap *hb, uint64_t bytes)
{
    return (bytes >> hb->shift) + ((bytes & ((UINT64_C(1) << hb->shift) - 1)) != 0);
}

/* True when a tree whose root has this level covers the granules. */
static bool level_covers(unsigned level, uint64_t granules)
{
    return granules == 0 || (granules - 1) >> slot_shift(level) < FANOUT;
}

HBitmap *hbitmap_new(uint64_t size, uint32_t granularity)
{
    HBitmap *hb;

    g_assert(granularity > 0 && (granularity & (granularity - 1)) == 0);
    g_assert(size <= INT64_MAX);
    hb = g_new0(HBitmap, 1);
    hb->size = size;
    hb->shift = __builtin_ctz(granularity);
    hb->granules = granules_of(hb, size);
    while (!level_covers(hb->level, hb->granules)) {
        hb->level++;
    }
    hb->root = node_new(hb->level, false);
    return hb;
}

void hbitmap_free(HBitmap *hb)
{
    if (hb) {
        node_free(hb->root, hb->level);
        g_free(hb);
    }
}

uint64_t hbitmap_size(const HBitmap *hb)
{
    return hb->size;
}

uint32_t hbitmap_granularity(const HBitmap *hb)
{
    return UINT32_C(1) << hb->shift;
}

uint64_t hbitmap_count(const HBitmap *hb)
{
    uint64_t bytes = hb->root->count << hb->shift;

    if (bytes > 0 && hbitmap_get(hb, hb->size - 1)) {
        bytes -= (hb->granules << hb->shift) - hb->size;
    }
    return bytes;
}

bool hbitmap_empty(const HBitmap *hb)
{
    return hb->root->count == 0;
}

static bool get_granule(const HBitmap *hb, uint64_t granule)
{
    return hbitmap_get_word(hb, granule / 64) >> granule % 64 & 1;
}

bool hbitmap_get(const HBitmap *hb, uint64_t offset)
{
    g_assert(offset < hb->size);
    return get_granule(hb, offset >> hb->shift);
}

static void hbitmap_change(HBitmap *hb, uint64_t offset, uint64_t bytes, bool value)
{
    g_assert(offset <= hb->size && bytes <= hb->size - offset);
    if (bytes > 0) {
        node_change(hb->root, hb->level, offset >> hb->shift, (offset + bytes - 1) >> hb->shift,
                    value);
    }
}

void hbitmap_set(HBitmap *hb, uint64_t offset, uint64_t bytes)
{
    hbitmap_change(hb, offset, bytes, true);
}

void hbitmap_reset(HBitmap *hb, uint64_t offset, uint64_t bytes)
{
    uint64_t mask = (UINT64_C(1) << hb->shift) - 1;

    g_assert((offset & mask) == 0);
    g_assert((bytes & mask) == 0 || offset + bytes == hb->size);
    hbitmap_change(hb, offset, bytes, false);
}

void hbitmap_reset_all(HBitmap *hb)
{
    node_free(hb->root, hb->level);
    hb->root = node_new(hb->level, false);
}

/* Puts a root of the next level above the present one. */
static void hbitmap_add_level(HBitmap *hb)
{
    HBNode *root = node_new(hb->level + 1, false);

    root->child[0] = hb->root;
    slot_set_state(root, 0, SLOT_MIXED);
    hb->root = root;
    hb->level++;
    slot_fold(hb->root, hb->level, 0);
}

void hbitmap_truncate(HBitmap *hb, uint64_t size)
{
    uint64_t granules = granules_of(hb, size);

    g_assert(size <= INT64_MAX);
    if (granules < hb->granules) {
        node_change(hb->root, hb->level, granules, hb->granules - 1, false);
    }
    while (!level_covers(hb->level, granules)) {
        hbitmap_add_level(hb);
    }
    hb->size = size;
    hb->granules = granules;
}

/* The first byte in [offset, offset + bytes) whose bit is `value`, or -1. */
static int64_t hbitmap_find(const HBitmap *hb, uint64_t offset, uint64_t bytes, bool value)
{
    uint64_t end, granule;

    if (offset >= hb->size || bytes == 0) {
        return -1;
    }
    end = offset + MIN(bytes, hb->size - offset);
    if (!node_find(hb->root, hb->level, offset >> hb->shift, value, &granule) ||
        granule >= hb->granules || granule << hb->shift >= end) {
        return -1;
    }
    return MAX(granule << hb->shift, offset);
}

int64_t hbitmap_next_dirty(const HBitmap *hb, uint64_t offset, uint64_t bytes)
{
    return hbitmap_find(hb, offset, bytes, true);
}

int64_t hbitmap_next_zero(const HBitmap *hb, uint64_t offset, uint64_t bytes)
{
    return hbitmap_find(hb, offset, bytes, false);
}

bool hbitmap_next_dirty_area(const HBitmap *hb, uint64_t start, uint64_t end, uint64_t max_bytes,
                             uint64_t *dirty_start, uint64_t *dirty_bytes)
{
    int64_t from, to;

    g_assert(max_bytes > 0);
    end = MIN(end, hb->size);
    if (start >= end) {
        return false;
    }
    from = hbitmap_find(hb, start, end - start, true);
    if (from < 0) {
        return false;
    }
    end = MIN(end, from + MIN(max_bytes, end - from));
    to = hbitmap_find(hb, from, end - from, false);
    *dirty_start = from;
    *dirty_bytes = (to < 0 ? end : (uint64_t)to) - from;
    return true;
}

bool hbitmap_status(const HBitmap *hb, uint64_t offset, uint64_t bytes, uint64_t *pnum)
{
    bool dirty = hbitmap_get(hb, offset);
    int64_t change = hbitmap_find(hb, offset, bytes, !dirty);

    *pnum = change < 0 ? MIN(bytes, hb->size - offset) : change - offset;
    return dirty;
}

void hbitmap_merge(HBitmap *dst, const HBitmap *src)
{
    uint64_t start, bytes = 0;

    g_assert(dst->size == src->size);
    if (dst == src) {
        return;
    }
    if (dst->shift == src->shift && dst->level == src->level) {
        node_merge(dst->root, src->root, dst->level);
        return;
    }
    for (uint64_t pos = 0; hbitmap_next_dirty_area(src, pos, src->size, UINT64_MAX, &start, &bytes);
         pos = start + bytes) {
        hbitmap_set(dst, start, bytes);
    }
}

HBitmap *hbitmap_clone(const HBitmap *hb)
{
    HBitmap *copy = g_new(HBitmap, 1);

    *copy = *hb;
    copy->root = node_clone(hb->root, hb->level);
    return copy;
}

uint64_t hbitmap_serialization_align(const HBitmap *hb)
{
    return UINT64_C(64) << hb->shift;
}

/* Checks a part's alignment; the index of its first word and, in *words, how many there are. */
static uint64_t serialization_words(const HBitmap *hb, uint64_t offset, uint64_t bytes,
                                    uint64_t *words)
{
    uint64_t mask = hbitmap_serialization_align(hb) - 1;
    uint64_t granules;

    g_assert(offset <= hb->size && bytes <= hb->size - offset);
    g_assert((offset & mask) == 0);
    g_assert((bytes & mask) == 0 || offset + bytes == hb->size);
    granules = granules_of(hb, bytes);
    *words = granules / 64 + (granules % 64 != 0);
    return offset >> hb->shift >> 6;
}

uint64_t hbitmap_serialization_size(const HBitmap *hb, uint64_t offset, uint64_t bytes)
{
    uint64_t words;

    serialization_words(hb, offset, bytes, &words);
    return words * sizeof(uint64_t);
}

void hbitmap_serialize_part(const HBitmap *hb, uint8_t *buf, uint64_t offset, uint64_t bytes)
{
    uint64_t words;
    uint64_t first = serialization_words(hb, offset, bytes, &words);

    for (uint64_t i = 0; i < words; i++) {
        uint64_t word = GUINT64_TO_LE(hbitmap_get_word(hb, first + i));

        memcpy(buf + i * sizeof(word), &word, sizeof(word));
    }
}

void hbitmap_deserialize_part(HBitmap *hb, const uint8_t *buf, uint64_t offset, uint64_t bytes)
{
    uint64_t words;
    uint64_t first = serialization_words(hb, offset, bytes, &words);

    for (uint64_t i = 0; i < words; i++) {
        uint64_t word, left = hb->granules - (first + i) * 64;

        memcpy(&word, buf + i * sizeof(word), sizeof(word));
        word = GUINT64_FROM_LE(word);
        if (left < 64) {
            /* The image comes from outside; what it says past the end is not ours to keep. */
            word &= (UINT64_C(1) << left) - 1;
        }
        node_set_word(hb->root, hb->level, first + i, word);
    }
}
