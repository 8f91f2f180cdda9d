/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scatter-gather vectors: one walk over a byte range of an iovec, and what is built from it. */
#include "util/iov.h"

#include <string.h>

#include "util/bufferiszero.h"

/* A position in an iovec, and the bytes that are still wanted from there. */
typedef struct IOVCursor {
    const struct iovec *iov;
    const struct iovec *end;
    size_t skip; /* bytes of *iov before the position */
    size_t left;
} IOVCursor;

static IOVCursor iov_cursor(const struct iovec *iov, unsigned niov, size_t offset, size_t bytes)
{
    IOVCursor c = {.iov = iov, .end = niov ? iov + niov : iov, .skip = offset, .left = bytes};

    return c;
}

/*
 * The next contiguous, non-empty piece of the range; false at its end or at the end of the vector.
 */
static bool iov_cursor_next(IOVCursor *c, void **base, size_t *bytes)
{
    while (c->left > 0 && c->iov < c->end) {
        const struct iovec *v = c->iov++;
        size_t skip = c->skip;

        if (skip >= v->iov_len) {
            c->skip -= v->iov_len;
            continue;
        }
        *base = (char *)v->iov_base + skip;
        *bytes = MIN(v->iov_len - skip, c->left);
        c->skip = 0;
        c->left -= *bytes;
        return true;
    }
    return false;
}

size_t iov_size(const struct iovec *iov, unsigned niov)
{
    size_t size = 0;

    for (unsigned i = 0; i < niov; i++) {
        size += iov[i].iov_len;
    }
    return size;
}

size_t iov_to_buf(const struct iovec *iov, unsigned niov, size_t offset, void *buf, size_t bytes)
{
    IOVCursor c = iov_cursor(iov, niov, offset, bytes);
    char *to = buf;
    void *base;
    size_t n;

    while (iov_cursor_next(&c, &base, &n)) {
        memcpy(to, base, n);
        to += n;
    }
    return bytes - c.left;
}

size_t iov_from_buf(const struct iovec *iov, unsigned niov, size_t offset, const void *buf,
                    size_t bytes)
{
    IOVCursor c = iov_cursor(iov, niov, offset, bytes);
    const char *from = buf;
    void *base;
    size_t n;

    while (iov_cursor_next(&c, &base, &n)) {
        memcpy(base, from, n);
        from += n;
    }
    return bytes - c.left;
}

size_t iov_memset(const struct iovec *iov, unsigned niov, size_t offset, int fill, size_t bytes)
{
    IOVCursor c = iov_cursor(iov, niov, offset, bytes);
    void *base;
    size_t n;

    while (iov_cursor_next(&c, &base, &n)) {
        memset(base, fill, n);
    }
    return bytes - c.left;
}

void qemu_iovec_init(QEMUIOVector *qiov, int hint)
{
    /* nalloc 0 would say that the array is the caller's. */
    int nalloc = MAX(hint, 1);

    *qiov = (QEMUIOVector){.iov = g_new(struct iovec, nalloc), .nalloc = nalloc};
}

void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov)
{
    *qiov = (QEMUIOVector){.iov = iov, .niov = niov, .size = iov_size(iov, niov)};
}

void qemu_iovec_init_buf(QEMUIOVector *qiov, void *buf, size_t bytes)
{
    *qiov = (QEMUIOVector){.niov = 1, .size = bytes, .local_iov = {buf, bytes}};
    qiov->iov = &qiov->local_iov;
}

void qemu_iovec_init_slice(QEMUIOVector *qiov, const QEMUIOVector *src, size_t offset, size_t bytes)
{
    qemu_iovec_init(qiov, src->niov);
    qemu_iovec_concat(qiov, src, offset, bytes);
}

/* The element behind the last one, counted as used from now on. */
static struct iovec *append_element(QEMUIOVector *qiov)
{
    int used = qiov->niov++;

    /* A vector over the caller's array cannot grow. */
    g_assert(qiov->nalloc > 0);
    if (qiov->niov > qiov->nalloc) {
        qiov->nalloc = qiov->niov + used;
        qiov->iov = g_realloc_n(qiov->iov, qiov->nalloc, sizeof(*qiov->iov));
    }
    return qiov->iov + used;
}

void qemu_iovec_add(QEMUIOVector *qiov, void *base, size_t bytes)
{
    struct iovec *last = append_element(qiov);

    last->iov_base = base;
    last->iov_len = bytes;
    qiov->size += bytes;
}

void qemu_iovec_concat(QEMUIOVector *qiov, const QEMUIOVector *src, size_t offset, size_t bytes)
{
    IOVCursor c = iov_cursor(src->iov, src->niov, offset, bytes);
    void *base;
    size_t n;

    /* Adding to qiov may move the array that the cursor walks. */
    g_assert(qiov != src);
    g_assert(offset <= src->size && bytes <= src->size - offset);
    while (iov_cursor_next(&c, &base, &n)) {
        qemu_iovec_add(qiov, base, n);
    }
}

void qemu_iovec_reset(QEMUIOVector *qiov)
{
    g_assert(qiov->nalloc > 0);
    *qiov = (QEMUIOVector){.iov = qiov->iov, .nalloc = qiov->nalloc};
}

void qemu_iovec_destroy(QEMUIOVector *qiov)
{
    struct iovec *own = qiov->nalloc > 0 ? qiov->iov : NULL;

    memset(qiov, 0, sizeof(*qiov));
    g_free(own);
}

size_t qemu_iovec_to_buf(const QEMUIOVector *qiov, size_t offset, void *buf, size_t bytes)
{
    return iov_to_buf(qiov->iov, qiov->niov, offset, buf, bytes);
}

size_t qemu_iovec_from_buf(QEMUIOVector *qiov, size_t offset, const void *buf, size_t bytes)
{
    return iov_from_buf(qiov->iov, qiov->niov, offset, buf, bytes);
}

size_t qemu_iovec_memset(QEMUIOVector *qiov, size_t offset, int fill, size_t bytes)
{
    return iov_memset(qiov->iov, qiov->niov, offset, fill, bytes);
}

bool qemu_iovec_is_zero(const QEMUIOVector *qiov, size_t offset, size_t bytes)
{
    IOVCursor c = iov_cursor(qiov->iov, qiov->niov, offset, bytes);
    void *base;
    size_t n;

    g_assert(offset <= qiov->size && bytes <= qiov->size - offset);
    while (iov_cursor_next(&c, &base, &n)) {
        if (!buffer_is_zero(base, n)) {
            return false;
        }
    }
    return true;
}

bool qemu_iovec_is_aligned(const QEMUIOVector *qiov, size_t align)
{
    uintptr_t bits = 0;

    for (int i = 0; i < qiov->niov; i++) {
        bits |= (uintptr_t)qiov->iov[i].iov_base | qiov->iov[i].iov_len;
    }
    return (bits & (align - 1)) == 0;
}

void iov_cursor_advance(IovCursor *cur, size_t bytes)
{
    while (cur->niov && bytes >= cur->iov->iov_len - cur->skip) {
        bytes -= cur->iov->iov_len - cur->skip;
        cur->skip = 0;
        cur->iov++;
        cur->niov--;
    }
    cur->skip += bytes;
}
