/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Zero detection. Most buffers that hold data show it in their first, middle or last bytes, so
 * these are looked at before the long walk. The vector versions read whole vectors at unaligned
 * addresses. The last read ends at the last byte and may overlap the one before it, so nothing
 * outside the buffer is touched.
 */
#include "util/bufferiszero.h"

#include <stdint.h>
#include <string.h>
#include <glib.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef bool ZeroFunc(const uint8_t *p, size_t bytes);

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* Bytes >= 8. */
static bool zero_scalar(const uint8_t *p, size_t bytes)
{
    const uint8_t *last = p + bytes - 8;

    for (; last - p >= 32; p += 32) {
        if (load64(p) | load64(p + 8) | load64(p + 16) | load64(p + 24)) {
            return false;
        }
    }
    for (; p < last; p += 8) {
        if (load64(p)) {
            return false;
        }
    }
    return load64(last) == 0;
}

#if defined(__x86_64__)

/* Shorter buffers are not worth the vector versions; also keeps their tails inside the buffer. */
#define AVX2_MIN_BYTES   128
#define AVX512_MIN_BYTES 256

static inline __attribute__((target("avx2"))) __m256i load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* True when the 128 bytes at p are zero. */
static inline __attribute__((target("avx2"))) bool zero_block_avx2(const uint8_t *p)
{
    __m256i a = _mm256_or_si256(load256(p), load256(p + 32));
    __m256i b = _mm256_or_si256(load256(p + 64), load256(p + 96));
    __m256i v = _mm256_or_si256(a, b);

    return _mm256_testz_si256(v, v);
}

static __attribute__((target("avx2"))) bool zero_avx2(const uint8_t *p, size_t bytes)
{
    if (bytes < AVX2_MIN_BYTES) {
        return zero_scalar(p, bytes);
    }

    const uint8_t *last = p + bytes - 128;

    if (!zero_block_avx2(p)) {
        return false;
    }
    /* From here on aligned: a vector that straddles two cache lines costs two loads. */
    p = (const uint8_t *)(((uintptr_t)p + 128) & ~(uintptr_t)31);
    for (; p < last; p += 128) {
        if (!zero_block_avx2(p)) {
            return false;
        }
    }
    return zero_block_avx2(last);
}

static inline __attribute__((target("avx512f"))) __m512i load512(const uint8_t *p)
{
    return _mm512_loadu_si512((const void *)p);
}

/* True when the 256 bytes at p are zero. */
static inline __attribute__((target("avx512f"))) bool zero_block_avx512(const uint8_t *p)
{
    __m512i a = _mm512_or_si512(load512(p), load512(p + 64));
    __m512i b = _mm512_or_si512(load512(p + 128), load512(p + 192));
    __m512i v = _mm512_or_si512(a, b);

    return _mm512_test_epi64_mask(v, v) == 0;
}

static __attribute__((target("avx512f"))) bool zero_avx512(const uint8_t *p, size_t bytes)
{
    if (bytes < AVX512_MIN_BYTES) {
        return zero_scalar(p, bytes);
    }

    const uint8_t *last = p + bytes - 256;

    if (!zero_block_avx512(p)) {
        return false;
    }
    p = (const uint8_t *)(((uintptr_t)p + 256) & ~(uintptr_t)63);
    for (; p < last; p += 256) {
        if (!zero_block_avx512(p)) {
            return false;
        }
    }
    return zero_block_avx512(last);
}

static bool have_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

static bool have_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

#endif

static bool have_scalar(void)
{
    return true;
}

/* Best first. */
static const struct ZeroImplementation {
    const char *name;
    ZeroFunc *is_zero;
    bool (*available)(void);
} implementations[] = {
#if defined(__x86_64__)
    {"avx512", zero_avx512, have_avx512},
    {"avx2", zero_avx2, have_avx2},
#endif
    {"scalar", zero_scalar, have_scalar},
};

/* NULL until first used; any thread may choose, and all choose the same. */
static const struct ZeroImplementation *chosen;

static const struct ZeroImplementation *choose(void)
{
    const struct ZeroImplementation *impl = implementations;

    while (!impl->available()) {
        impl++;
    }
    __atomic_store_n(&chosen, impl, __ATOMIC_RELAXED);
    return impl;
}

static inline const struct ZeroImplementation *implementation(void)
{
    const struct ZeroImplementation *impl = __atomic_load_n(&chosen, __ATOMIC_RELAXED);

    return G_LIKELY(impl != NULL) ? impl : choose();
}

bool buffer_is_zero(const void *buf, size_t bytes)
{
    const uint8_t *p = buf;

    if (bytes < 8) {
        uint8_t any = 0;

        for (size_t i = 0; i < bytes; i++) {
            any |= p[i];
        }
        return any == 0;
    }
    if (load64(p) | load64(p + (bytes - 8) / 2) | load64(p + bytes - 8)) {
        return false;
    }
    return implementation()->is_zero(p, bytes);
}

const char *buffer_is_zero_implementation(void)
{
    return implementation()->name;
}

bool buffer_is_zero_select(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(implementations); i++) {
        const struct ZeroImplementation *impl = &implementations[i];

        if (g_str_equal(impl->name, name) && impl->available()) {
            __atomic_store_n(&chosen, impl, __ATOMIC_RELAXED);
            return true;
        }
    }
    return false;
}
