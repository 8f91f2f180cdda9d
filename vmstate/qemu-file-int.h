/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two halves of QEMUFile, the writer and the reader, share. */
#ifndef FERRY_VMSTATE_QEMU_FILE_INT_H
#define FERRY_VMSTATE_QEMU_FILE_INT_H

#include "vmstate/qemu-file.h"

/* Pieces of one vectored call; no more than the kernel takes (IOV_MAX). */
#define QEMU_FILE_MAX_IOV 1024

struct QEMUFile {
    QIOChannel *ioc; /* NULL: in memory */
    bool writable;
    QEMUFileWaitFunc *before_wait, *after_wait;
    void *wait_opaque;
    int64_t deadline_ns; /* QEMU_CLOCK_REALTIME, of waits; 0: none */

    /* Any thread. */
    int error;         /* atomic: 0 or -errno */
    uint64_t moved;    /* atomic: through the channel */
    uint64_t position; /* atomic: put, or got */
    GMutex lock;       /* guards error_text, and error while it is set */
    GError *error_text;

    uint8_t *buf;
    size_t buf_size;

    /* vmstate.c: descriptions being walked, one inside the other; their error says where already.
     */
    unsigned nesting;
    bool error_located;
    struct iovec iov[QEMU_FILE_MAX_IOV];

    /* A writer: iov[0..niov) is what waits to leave; some of it is in buf[0..buf_used). */
    size_t niov;
    size_t buf_used;
    GByteArray *sink; /* in memory */
    size_t sink_max;

    /* A reader: buf[buf_pos..buf_end) has been fetched and not been got. */
    size_t buf_pos, buf_end;
    bool ended;        /* the channel has no more */
    size_t run_window; /* how many bodies to expect beyond the certain one */
    uint8_t (*run_tags)[8];
    GBytes *source; /* in memory */
    size_t source_pos;
};

static inline bool qemu_file_failed(const QEMUFile *f)
{
    return __atomic_load_n(&f->error, __ATOMIC_RELAXED) != 0;
}

static inline void qemu_file_count(uint64_t *counter, int64_t bytes)
{
    /* one thread writes, others read */
    __atomic_store_n(counter, *counter + bytes, __ATOMIC_RELAXED);
}

/* Blocks until the channel may take or give bytes. 0 or the file's error. */
int qemu_file_wait(QEMUFile *f, QIOChannelDirection dir);
/*
 * For calls that may wait: a blocking channel waits in the kernel, unless waits are hooked or have a
 * deadline.
 */
int qemu_file_channel_flags(const QEMUFile *f);

/* --- the reader's (qemu-file-read.c) --- */

/*
 * Moves what there is. Bytes; 0 at the end of the stream; -EAGAIN (only with may_wait false:
 * nothing is there yet); the file's error.
 */
ssize_t qemu_file_readv(QEMUFile *f, const struct iovec *iov, size_t niov, bool may_wait);
/* The error of a stream that ends too early. */
void qemu_file_set_ended(QEMUFile *f);

#endif
