/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Byte order: values in memory of any alignment, and conversion of values.
 *
 * Loads: ldub_p, lduw_{le,be}_p, ldl_{le,be}_p, ldq_{le,be}_p. The ldl functions return int, as in
 * QEMU: cast to uint32_t where the sign matters, or use ldul_{le,be}_p. Stores: stb_p,
 * stw_{le,be}_p, stl_{le,be}_p, stq_{le,be}_p. Conversions: cpu_to_beN(), beN_to_cpu(),
 * cpu_to_leN(), leN_to_cpu().
 */
#ifndef FERRY_UTIL_BSWAP_H
#define FERRY_UTIL_BSWAP_H

#include <glib.h>
#include <stdint.h>
#include <string.h>

static inline int ldub_p(const void *p)
{
    return *(const uint8_t *)p;
}

static inline void stb_p(void *p, uint8_t v)
{
    *(uint8_t *)p = v;
}

/* `end` is le or be, END the same for glib. */
#define BSWAP_CONVERSION(bits, end, END)                              \
    static inline uint##bits##_t cpu_to_##end##bits(uint##bits##_t v) \
    {                                                                 \
        return GUINT##bits##_TO_##END(v);                             \
    }                                                                 \
    static inline uint##bits##_t end##bits##_to_cpu(uint##bits##_t v) \
    {                                                                 \
        return GUINT##bits##_FROM_##END(v);                           \
    }
#define BSWAP_LOAD(name, type, bits, end)                  \
    static inline type ld##name##_##end##_p(const void *p) \
    {                                                      \
        uint##bits##_t v;                                  \
                                                           \
        memcpy(&v, p, sizeof(v));                          \
        return (type)end##bits##_to_cpu(v);                \
    }
#define BSWAP_STORE(name, bits, end)                                   \
    static inline void st##name##_##end##_p(void *p, uint##bits##_t v) \
    {                                                                  \
        v = cpu_to_##end##bits(v);                                     \
        memcpy(p, &v, sizeof(v));                                      \
    }
#define BSWAP(end, END)               \
    BSWAP_CONVERSION(16, end, END)    \
    BSWAP_CONVERSION(32, end, END)    \
    BSWAP_CONVERSION(64, end, END)    \
    BSWAP_LOAD(uw, int, 16, end)      \
    BSWAP_LOAD(l, int, 32, end)       \
    BSWAP_LOAD(ul, uint32_t, 32, end) \
    BSWAP_LOAD(q, uint64_t, 64, end)  \
    BSWAP_STORE(w, 16, end)           \
    BSWAP_STORE(l, 32, end)           \
    BSWAP_STORE(q, 64, end)
BSWAP(be, BE)
BSWAP(le, LE)
#undef BSWAP
#undef BSWAP_STORE
#undef BSWAP_LOAD
#undef BSWAP_CONVERSION

#endif
