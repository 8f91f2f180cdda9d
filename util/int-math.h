/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checked and rounding integer arithmetic.
 *
 * Every sum or product with a number from outside (guest, peer, image, client) goes through the
 * checked helpers. They return false and leave *res unusable when the exact result does not fit its
 * type.
 */
#ifndef FERRY_UTIL_INT_MATH_H
#define FERRY_UTIL_INT_MATH_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MIN() and MAX() are glib's: they evaluate their arguments twice. */

static inline G_GNUC_WARN_UNUSED_RESULT bool add_i64(int64_t a, int64_t b, int64_t *res)
{
    return !__builtin_add_overflow(a, b, res);
}

static inline G_GNUC_WARN_UNUSED_RESULT bool add_u64(uint64_t a, uint64_t b, uint64_t *res)
{
    return !__builtin_add_overflow(a, b, res);
}

static inline G_GNUC_WARN_UNUSED_RESULT bool mul_u64(uint64_t a, uint64_t b, uint64_t *res)
{
    return !__builtin_mul_overflow(a, b, res);
}

static inline G_GNUC_WARN_UNUSED_RESULT bool mul_size(size_t a, size_t b, size_t *res)
{
    return !__builtin_mul_overflow(a, b, res);
}

/* a * b / c without overflow in between; c > 0; UINT64_MAX where the result does not fit. */
static inline uint64_t muldiv64(uint64_t a, uint64_t b, uint64_t c)
{
    unsigned __int128 res = (unsigned __int128)a * b / c;

    return res > UINT64_MAX ? UINT64_MAX : (uint64_t)res;
}

/* True when [offset, offset + bytes) lies within [0, size), in exact arithmetic. */
static inline bool range_fits_u64(uint64_t offset, uint64_t bytes, uint64_t size)
{
    return offset <= size && bytes <= size - offset;
}

/*
 * True when [a, a + a_bytes) and [b, b + b_bytes) share a byte; ranges that reach past 2^64 are
 * fine.
 */
static inline bool ranges_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b ? b - a < a_bytes && b_bytes > 0 : a - b < b_bytes && a_bytes > 0;
}

static inline bool is_power_of_2(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* Bits above the highest one; 64 for 0. */
static inline int clz64(uint64_t value)
{
    return value ? __builtin_clzll(value) : 64;
}

/* The largest power of two <= value, 0 for 0; the smallest >= value, 0 where it does not fit. */
static inline uint64_t pow2floor(uint64_t value)
{
    return value ? UINT64_C(1) << (63 - clz64(value)) : 0;
}

static inline uint64_t pow2ceil(uint64_t value)
{
    if (value <= 1) {
        return 1;
    }
    return value > UINT64_C(1) << 63 ? 0 : UINT64_C(1) << (64 - clz64(value - 1));
}

/*
 * Rounding, for values known to be in range (QEMU_ALIGN_UP and ROUND_UP may wrap: check with round_up_u64() what is
 * from outside). ROUND_*, IS_ALIGNED: d is a power of two; the others: any d > 0. Arguments are evaluated more than
 * once. Written with differences, which keep the type of n where a mask of d's type would lose its upper half.
 */
#define DIV_ROUND_UP(n, d)    ((n) / (d) + ((n) % (d) != 0))
#define IS_ALIGNED(n, d)      (!((n) & ((d)-1)))
#define ROUND_DOWN(n, d)      ((n) - ((n) & ((d)-1)))
#define ROUND_UP(n, d)        ((n) + (-(n) & ((d)-1)))
#define QEMU_ALIGN_DOWN(n, d) ((n) - (n) % (d))
#define QEMU_ALIGN_UP(n, d)   (DIV_ROUND_UP(n, d) * (d))

/* Rounds up to a multiple of d > 0; false when that does not fit. */
static inline G_GNUC_WARN_UNUSED_RESULT bool round_up_u64(uint64_t n, uint64_t d, uint64_t *res)
{
    uint64_t rest = n % d;

    *res = n;
    return rest == 0 || add_u64(n, d - rest, res);
}

#endif
