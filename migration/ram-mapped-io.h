/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The threads that move the pages of a mapped-ram file between guest memory and their places.
 *
 * With multifd each channel has such a thread, with a descriptor of its own. No two ranges that are
 * under way may have a page in common, so that they may finish in any order. Without multifd the
 * caller's thread moves them. What a move is (writing or reading) is the owner's business;
 * whichever thread makes it, the file is the same.
 *
 * One thread, the owner's, calls everything here.
 */
#ifndef FERRY_MIGRATION_RAM_MAPPED_IO_H
#define FERRY_MIGRATION_RAM_MAPPED_IO_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "io/channel.h"

typedef struct MappedIO MappedIO;

/* Consecutive pages of one block, whose places in the file are consecutive as well. */
typedef struct MappedRange {
    void *block;       /* what the owner keeps of it, until mapped_io_wait() has returned */
    uint64_t first, n; /* pages */
} MappedRange;

typedef struct MappedIOOptions {
    unsigned threads;        /* 0: the owner's thread moves the pages */
    const char *thread_name; /* "mig/src/send": with a number behind it */
    bool direct;             /* descriptors are opened with O_DIRECT */
    size_t scratch_bytes;    /* what each thread has for itself; 0: nothing */
    QIOChannel *stream;      /* the file of the stream: used where no other descriptor is needed */
    void *opaque;            /* of the functions below */
    /* A descriptor of the file for pread(2) or pwrite(2). -1 with an error. */
    int (*open)(void *opaque, bool direct, GError **errp);
    /*
     * Moves the range by `file`. Any of the threads, whose `scratch` is aligned to pages and holds anything.
     * 0, or -errno with an error.
     */
    int (*move)(void *opaque, QIOChannel *file, void *scratch, const MappedRange *range,
                GError **errp);
    /* Takes over the error of the first move that fails in a thread, which calls this; NULL: nothing. */
    void (*failed)(void *opaque, GError *err);
} MappedIOOptions;

/* Opens the descriptors and starts the threads. NULL with an error. */
MappedIO *mapped_io_new(const MappedIOOptions *options, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Moves the range, or has it moved some time before mapped_io_wait() returns. Waits while the threads
 * are too far behind. 0, or -errno with the error of the first move that failed, this one or an earlier.
 */
int mapped_io_submit(MappedIO *io, const MappedRange *range, GError **errp);
/*
 * Waits until everything submitted so far has been moved or, after a failure, is not going to be. 0 or
 * -errno as above.
 */
int mapped_io_wait(MappedIO *io, GError **errp);
/*
 * As mapped_io_wait(), and closes the descriptors, which may have something to say about what was
 * written. Nothing can be submitted any more.
 */
int mapped_io_finish(MappedIO *io, GError **errp);
/* Ends the threads and frees; ranges that no thread has begun with are forgotten. NULL is allowed. */
void mapped_io_free(MappedIO *io);

#endif
