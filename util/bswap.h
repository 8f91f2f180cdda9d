/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Byte order: values in memory of any alignment, and conversion of values.
 *
 * Loads: ldub_p, lduw_{le,be}_p, ldsw_{le,be}_p, ldl_{le,be}_p, ldq_{le,be}_p. The ldl functions
 * return int, as in QEMU: cast to uint32_t where the sign matters, or use ldul_{le,be}_p. Stores:
 * stb_p, stw_{le,be}_p, stl_{le,be}_p, stq_{le,be}_p. Conversions: cpu_to_beN(), beN_to_cpu(),
 * cpu_to_leN(), leN_to_cpu(), bswapN(). The forms cpu_to_beNs(uint*_t *) convert in place.
 */
#ifndef FERRY_UTIL_BSWAP_H
#define FERRY_UTIL_BSWAP_H

#include <glib.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t bswap16(uint16_t v)
{
    return __builtin_bswap16(v);
}

static inline uint32_t bswap32(uint32_t v)
{
    return __builtin_bswap32(v);
}

static inline uint64_t bswap64(uint64_t v)
{
    return __builtin_bswap64(v);
}

static inline uint16_t cpu_to_be16(uint16_t v)
{
    return GUINT16_TO_BE(v);
}

static inline uint16_t be16_to_cpu(uint16_t v)
{
    return GUINT16_FROM_BE(v);
}

static inline void cpu_to_be16s(uint16_t *p)
{
    *p = cpu_to_be16(*p);
}

static inline void be16_to_cpus(uint16_t *p)
{
    *p = be16_to_cpu(*p);
}

static inline uint16_t cpu_to_le16(uint16_t v)
{
    return GUINT16_TO_LE(v);
}

static inline uint16_t le16_to_cpu(uint16_t v)
{
    return GUINT16_FROM_LE(v);
}

static inline void cpu_to_le16s(uint16_t *p)
{
    *p = cpu_to_le16(*p);
}

static inline void le16_to_cpus(uint16_t *p)
{
    *p = le16_to_cpu(*p);
}

static inline uint32_t cpu_to_be32(uint32_t v)
{
    return GUINT32_TO_BE(v);
}

static inline uint32_t be32_to_cpu(uint32_t v)
{
    return GUINT32_FROM_BE(v);
}

static inline void cpu_to_be32s(uint32_t *p)
{
    *p = cpu_to_be32(*p);
}

static inline void be32_to_cpus(uint32_t *p)
{
    *p = be32_to_cpu(*p);
}

static inline uint32_t cpu_to_le32(uint32_t v)
{
    return GUINT32_TO_LE(v);
}

static inline uint32_t le32_to_cpu(uint32_t v)
{
    return GUINT32_FROM_LE(v);
}

static inline void cpu_to_le32s(uint32_t *p)
{
    *p = cpu_to_le32(*p);
}

static inline void le32_to_cpus(uint32_t *p)
{
    *p = le32_to_cpu(*p);
}

static inline uint64_t cpu_to_be64(uint64_t v)
{
    return GUINT64_TO_BE(v);
}

static inline uint64_t be64_to_cpu(uint64_t v)
{
    return GUINT64_FROM_BE(v);
}

static inline void cpu_to_be64s(uint64_t *p)
{
    *p = cpu_to_be64(*p);
}

static inline void be64_to_cpus(uint64_t *p)
{
    *p = be64_to_cpu(*p);
}

static inline uint64_t cpu_to_le64(uint64_t v)
{
    return GUINT64_TO_LE(v);
}

static inline uint64_t le64_to_cpu(uint64_t v)
{
    return GUINT64_FROM_LE(v);
}

static inline void cpu_to_le64s(uint64_t *p)
{
    *p = cpu_to_le64(*p);
}

static inline void le64_to_cpus(uint64_t *p)
{
    *p = le64_to_cpu(*p);
}

static inline int ldub_p(const void *p)
{
    return *(const uint8_t *)p;
}

static inline void stb_p(void *p, uint8_t v)
{
    *(uint8_t *)p = v;
}

static inline int lduw_be_p(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return be16_to_cpu(v);
}

static inline int ldsw_be_p(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return (int16_t)be16_to_cpu(v);
}

static inline int ldl_be_p(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return (int32_t)be32_to_cpu(v);
}

static inline uint32_t ldul_be_p(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return be32_to_cpu(v);
}

static inline uint64_t ldq_be_p(const void *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return be64_to_cpu(v);
}

static inline void stw_be_p(void *p, uint16_t v)
{
    v = cpu_to_be16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void stl_be_p(void *p, uint32_t v)
{
    v = cpu_to_be32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void stq_be_p(void *p, uint64_t v)
{
    v = cpu_to_be64(v);
    memcpy(p, &v, sizeof(v));
}

static inline int lduw_le_p(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return le16_to_cpu(v);
}

static inline int ldsw_le_p(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return (int16_t)le16_to_cpu(v);
}

static inline int ldl_le_p(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return (int32_t)le32_to_cpu(v);
}

static inline uint32_t ldul_le_p(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32_to_cpu(v);
}

static inline uint64_t ldq_le_p(const void *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64_to_cpu(v);
}

static inline void stw_le_p(void *p, uint16_t v)
{
    v = cpu_to_le16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void stl_le_p(void *p, uint32_t v)
{
    v = cpu_to_le32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void stq_le_p(void *p, uint64_t v)
{
    v = cpu_to_le64(v);
    memcpy(p, &v, sizeof(v));
}

#endif
