/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scatter-gather vectors: plain iovec helpers, and QEMUIOVector, a growable vector that knows its
 * size. Offsets and lengths are bytes. A vector never owns the memory it points to.
 */
#ifndef FERRY_UTIL_IOV_H
#define FERRY_UTIL_IOV_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

size_t iov_size(const struct iovec *iov, unsigned niov);
/*
 * Copies between a buffer and the vector from `offset` on; returns the bytes copied (fewer at its
 * end).
 */
size_t iov_to_buf(const struct iovec *iov, unsigned niov, size_t offset, void *buf, size_t bytes);
size_t iov_from_buf(const struct iovec *iov, unsigned niov, size_t offset, const void *buf,
                    size_t bytes);
size_t iov_memset(const struct iovec *iov, unsigned niov, size_t offset, int fill, size_t bytes);

typedef struct QEMUIOVector {
    struct iovec *iov;
    int niov;
    size_t size;
    int nalloc;             /* elements allocated in iov; 0: iov is the caller's (or local_iov) */
    struct iovec local_iov; /* storage of a one-element vector */
} QEMUIOVector;

/* Empty, with room for `hint` elements. */
void qemu_iovec_init(QEMUIOVector *qiov, int hint);
/* Over the caller's array, which must outlive it. */
void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov);
/* Over one buffer; needs no destroy. */
void qemu_iovec_init_buf(QEMUIOVector *qiov, void *buf, size_t bytes);
/* A view of bytes [offset, offset + bytes) of src; needs destroy. */
void qemu_iovec_init_slice(QEMUIOVector *qiov, const QEMUIOVector *src, size_t offset,
                           size_t bytes);
void qemu_iovec_add(QEMUIOVector *qiov, void *base, size_t bytes);
/* Appends a view of part of src. */
void qemu_iovec_concat(QEMUIOVector *qiov, const QEMUIOVector *src, size_t offset, size_t bytes);
void qemu_iovec_reset(QEMUIOVector *qiov);
void qemu_iovec_destroy(QEMUIOVector *qiov);
size_t qemu_iovec_to_buf(const QEMUIOVector *qiov, size_t offset, void *buf, size_t bytes);
size_t qemu_iovec_from_buf(QEMUIOVector *qiov, size_t offset, const void *buf, size_t bytes);
size_t qemu_iovec_memset(QEMUIOVector *qiov, size_t offset, int fill, size_t bytes);
/* True when bytes [offset, offset + bytes) are all zero. */
bool qemu_iovec_is_zero(const QEMUIOVector *qiov, size_t offset, size_t bytes);
/* True when every element's address and length is a multiple of align (a power of two). */
bool qemu_iovec_is_aligned(const QEMUIOVector *qiov, size_t align);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(QEMUIOVector, qemu_iovec_destroy)

/* --- walking along one --- */

/* A position in a vector that is the caller's and stays as it is. */
typedef struct IovCursor {
    const struct iovec *iov; /* the element to go on in */
    size_t niov;             /* elements left, with that one */
    size_t skip;             /* bytes of it that are done, fewer than it has */
} IovCursor;

/* Goes on by so many bytes, at most to the end, and over empty elements. */
void iov_cursor_advance(IovCursor *cur, size_t bytes);

#endif
