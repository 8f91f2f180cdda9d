/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOChannel: a stream of bytes to a peer, over whatever carries it: a socket, TLS on another
 * channel, a file, a pipe, memory.
 *
 * Three families of calls, by what waits:
 *
 *  - plain (qio_channel_readv): move what can be moved now, -EAGAIN otherwise; in blocking mode
 *    (qio_channel_set_blocking) they wait in the calling thread for the first byte;
 *  - _co_ (qio_channel_co_readv_all): the coroutine yields to its AioContext until it is done;
 *  - thread (qio_channel_readv_all): the calling thread waits until it is done. For threads that
 *    run no event loop.
 *
 * At most one reader and one writer at a time, each a coroutine or a thread; the two may be in
 * different threads, also over TLS. Waiting coroutines and watches belong to one AioContext at a
 * time. An idle channel (no call waits, no watch is set) may move: qio_channel_detach_aio_context()
 * in the old thread, then simply use it in the new one. qio_channel_shutdown(), qio_channel_ref()
 * and qio_channel_unref() may be called in any thread.
 *
 * Results: bytes moved, 0 for end of stream, or -errno. -EAGAIN means "would block" and sets no
 * error; every other failure sets errp. Vectors may have any length and hold empty elements; they
 * stay the caller's, unchanged. The caller owns one reference to a new channel; the last one
 * releases it.
 */
#ifndef FERRY_IO_CHANNEL_H
#define FERRY_IO_CHANNEL_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "util/aio.h"

typedef struct QIOChannel QIOChannel;
typedef struct QIOChannelClass QIOChannelClass;

#define QIO_CHANNEL(x) ((QIOChannel *)(x))

typedef enum QIOChannelFeature {
    QIO_CHANNEL_FEATURE_FD_PASS = 0x01,  /* file descriptors travel with the bytes */
    QIO_CHANNEL_FEATURE_SHUTDOWN = 0x02, /* shutdown reaches the peer */
    QIO_CHANNEL_FEATURE_SEEKABLE = 0x04, /* qio_channel_preadv(), _pwritev(), _seek() */
    QIO_CHANNEL_FEATURE_WRITE_ZERO_COPY = 0x08,
    QIO_CHANNEL_FEATURE_READ_MSG_PEEK = 0x10,
    QIO_CHANNEL_FEATURE_TLS = 0x20, /* bytes are encrypted on their way */
} QIOChannelFeature;

typedef enum QIOChannelShutdown {
    QIO_CHANNEL_SHUTDOWN_READ = 0x01,
    QIO_CHANNEL_SHUTDOWN_WRITE = 0x02,
    QIO_CHANNEL_SHUTDOWN_BOTH = 0x03,
} QIOChannelShutdown;

typedef enum QIOChannelDirection {
    QIO_CHANNEL_READ,
    QIO_CHANNEL_WRITE,
} QIOChannelDirection;

typedef enum QIOChannelFlags {
    /*
     * For implementations: the call may wait in the kernel, if the descriptor does. Without it the
     * implementation never waits.
     */
    QIO_CHANNEL_FLAG_MAY_BLOCK = 0x01,
    /* Reading: as MAY_BLOCK, and worth waiting until all that was asked for is there. */
    QIO_CHANNEL_READ_FLAG_WAITALL = 0x02,
    /* Reading: the bytes stay to be read again (feature READ_MSG_PEEK). */
    QIO_CHANNEL_READ_FLAG_MSG_PEEK = 0x04,
    /*
     * Reading: a TLS peer that left without saying so has ended the stream, for whose user knows
     * from the bytes where it ends. Without it that is -ECONNABORTED.
     */
    QIO_CHANNEL_READ_FLAG_RELAXED_EOF = 0x08,
    /* Writing: send from the caller's pages, which stay as they are until qio_channel_flush(). */
    QIO_CHANNEL_WRITE_FLAG_ZERO_COPY = 0x10,
} QIOChannelFlags;

/* Most file descriptors that travel with one message; more is an error on either side. */
#define QIO_CHANNEL_MAX_FDS 16

/* File descriptors along with bytes. */
typedef struct QIOChannelFds {
    int *
        fd; /* sending: the caller's; received: close-on-exec and the caller's, array to g_free() */
    size_t n; /* received, none came: 0 and NULL */
} QIOChannelFds;

/*
 * What carries the bytes. Never two reads at once nor two writes, but a read and a write may run at
 * once in two threads. flags are QIOChannelFlags.
 */
struct QIOChannelClass {
    const char *name;
    size_t instance_size; /* QIOChannel is the first member; zeroed */

    /*
     * Moves what can be moved; niov is 1..IOV_MAX, elements may be empty but not all. fds is NULL
     * unless the channel has FD_PASS.
     */
    ssize_t (*readv)(QIOChannel *ioc, const struct iovec *iov, size_t niov, QIOChannelFds *fds,
                     int flags, GError **errp);
    ssize_t (*writev)(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                      const QIOChannelFds *fds, int flags, GError **errp);

    /* With SEEKABLE; at an offset in bytes, the stream's own position stays. May wait for a disk. */
    ssize_t (*preadv)(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                      GError **errp);
    ssize_t (*pwritev)(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                       GError **errp);
    off_t (*seek)(QIOChannel *ioc, off_t offset, int whence, GError **errp);

    /* Optional: bytes are already at hand, so a reader must not wait for the descriptor. */
    bool (*read_pending)(QIOChannel *ioc);
    /*
     * Optional: the descriptor is readable while no call reads. False: that was a message of the
     * channel's own (TLS), and no data for the user has arrived.
     */
    bool (*idle_event)(QIOChannel *ioc);
    /*
     * What a waiter for `dir` has to poll: the result is a descriptor, *events is POLLIN or
     * POLLOUT. (TLS may have to read in order to write.) -1: there is nothing to wait for (closed,
     * or never waits).
     */
    int (*poll_fd)(QIOChannel *ioc, QIOChannelDirection dir, short *events);

    /*
     * Any thread. After it, reads end with 0 and writes with -EPIPE; a thread that waits in the
     * descriptor is woken. 0 or -errno.
     */
    int (*shutdown)(QIOChannel *ioc, QIOChannelShutdown how);
    /* Optional: see qio_channel_close(). */
    int (*close)(QIOChannel *ioc, GError **errp);
    /* The last reference is gone: releases what is still there. Must not wait. */
    void (*finalize)(QIOChannel *ioc);

    /* With WRITE_ZERO_COPY: see qio_channel_flush(). */
    int (*flush)(QIOChannel *ioc, GError **errp);
    /* Optional: whether the descriptor itself makes MAY_BLOCK calls wait. 0 or -errno. */
    int (*set_blocking)(QIOChannel *ioc, bool on);
    /* Optional: the socket that takes bytes as they are, for sendfile(2); -1 when closed. */
    int (*raw_socket)(const QIOChannel *ioc);
    void (*set_cork)(QIOChannel *ioc, bool on);  /* optional: hold back partial segments */
    void (*set_delay)(QIOChannel *ioc, bool on); /* optional: false: TCP_NODELAY */
};

typedef void QIOChannelWatchFunc(void *opaque);

/* A descriptor registered in the event loop; two where reading and writing have one each. */
typedef struct QIOChannelPoll {
    QIOChannel *ioc;
    int fd;       /* -1: none */
    bool in, out; /* registered; may outlive the waiter until they fire without one */
} QIOChannelPoll;

/* One direction's coroutine and watch. */
typedef struct QIOChannelWaiter {
    Coroutine *co;
    int fd;
    short events;
    bool interrupted;
    QIOChannelWatchFunc *watch;
    void *watch_opaque;
    int watch_fd;
    short watch_events;
} QIOChannelWaiter;

/* Members are the implementation's; users go through the functions. */
struct QIOChannel {
    const QIOChannelClass *klass;
    int refcount;      /* atomic */
    unsigned features; /* QIOChannelFeature */
    char *name;        /* for traces and errors */
    int shut;          /* atomic: QIOChannelShutdown asked for */
    bool blocking;     /* set before the channel is used in more than one thread */

    AioContext *ctx; /* where descriptors are registered, NULL: nowhere */
    bool watch_due;  /* watches whose bytes are at hand will be called from the loop */
    QIOChannelPoll polls[2];
    QIOChannelWaiter waiters[2]; /* by QIOChannelDirection */
};

/* For implementations: a zeroed instance with one reference. */
QIOChannel *qio_channel_alloc(const QIOChannelClass *klass, const char *name);
/* For implementations: shutdown in that direction was asked for. Any thread. */
bool qio_channel_is_shut(const QIOChannel *ioc, QIOChannelShutdown how);

QIOChannel *qio_channel_ref(QIOChannel *ioc);
void qio_channel_unref(QIOChannel *ioc); /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QIOChannel, qio_channel_unref)

void qio_channel_set_name(QIOChannel *ioc, const char *name);
const char *qio_channel_get_name(const QIOChannel *ioc);
bool qio_channel_has_feature(const QIOChannel *ioc, QIOChannelFeature feature);

/* --- plain --- */

/*
 * Whether the plain calls wait for the first byte (false for a new channel). If so, the thread
 * calls wait inside the kernel instead of in poll(2), which costs fewer system calls. No other call
 * uses the channel meanwhile. The _co_ calls work in either mode. True, or false and errp.
 */
bool qio_channel_set_blocking(QIOChannel *ioc, bool on, GError **errp);

ssize_t qio_channel_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp);
ssize_t qio_channel_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp);
ssize_t qio_channel_read(QIOChannel *ioc, void *buf, size_t bytes, GError **errp);
ssize_t qio_channel_write(QIOChannel *ioc, const void *buf, size_t bytes, GError **errp);
/*
 * With descriptors and flags (MSG_PEEK, RELAXED_EOF; ZERO_COPY). fds may be NULL. Sent descriptors
 * travel with the first byte.
 */
ssize_t qio_channel_readv_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                               QIOChannelFds *fds, int flags, GError **errp);
ssize_t qio_channel_writev_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const QIOChannelFds *fds, int flags, GError **errp);

/* --- in coroutines --- */

/*
 * Waits until a read (write) may make progress. 0, or -ECANCELED after qio_channel_interrupt();
 * -EPIPE when closed. Spurious wake-ups happen: try, and wait again on -EAGAIN.
 */
int coroutine_fn qio_channel_co_wait(QIOChannel *ioc, QIOChannelDirection dir);
/*
 * Makes waits in progress return -ECANCELED, from the event loop. The channel is unharmed. The
 * channel's thread.
 */
void qio_channel_interrupt(QIOChannel *ioc);

/* At least one byte, or 0 at end of stream. */
ssize_t coroutine_fn qio_channel_co_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                          GError **errp);
/* All bytes: 0. The end of the stream before that is -EPIPE, with an error that says so. */
int coroutine_fn qio_channel_co_readv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qio_channel_co_read_all(QIOChannel *ioc, void *buf, size_t bytes,
                                         GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* As above, but 1 for all bytes and 0 when the stream ends before the first one. */
int coroutine_fn qio_channel_co_readv_all_eof(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                              GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qio_channel_co_read_all_eof(QIOChannel *ioc, void *buf, size_t bytes,
                                             GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qio_channel_co_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qio_channel_co_write_all(QIOChannel *ioc, const void *buf, size_t bytes,
                                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* --- in threads that run no event loop; results as above --- */

/*
 * Waits in poll(2), until deadline_ns of QEMU_CLOCK_REALTIME unless that is 0. 0, -ETIMEDOUT,
 * -EPIPE when closed. Shutdown wakes it, with 0.
 */
int qio_channel_wait(QIOChannel *ioc, QIOChannelDirection dir, int64_t deadline_ns);

int qio_channel_readv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int qio_channel_read_all(QIOChannel *ioc, void *buf, size_t bytes,
                         GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int qio_channel_read_all_eof(QIOChannel *ioc, void *buf, size_t bytes,
                             GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int qio_channel_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int qio_channel_write_all(QIOChannel *ioc, const void *buf, size_t bytes,
                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* How a whole vector is moved. Zeroed: as the calls above do. */
typedef struct QIOChannelAllOptions {
    int flags;           /* MSG_PEEK excepted */
    int64_t deadline_ns; /* QEMU_CLOCK_REALTIME; -ETIMEDOUT after it; 0: none */
} QIOChannelAllOptions;

int qio_channel_readv_all_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                               const QIOChannelAllOptions *opts,
                               GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int qio_channel_readv_all_eof_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                   const QIOChannelAllOptions *opts,
                                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int qio_channel_writev_all_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const QIOChannelAllOptions *opts,
                                GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* --- zero copy (feature WRITE_ZERO_COPY), in threads --- */

/*
 * As qio_channel_writev_all(), but the kernel sends from the caller's pages. They must stay mapped
 * until qio_channel_flush() returns. If they change before that, the peer may get the new bytes.
 * -ENOBUFS: the process may not lock that much memory.
 */
int qio_channel_writev_zero_copy_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                     GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Waits until the kernel needs none of the pages any more. 0; 1 when it has copied all of them
 * since the last flush, so that zero copy gains nothing (loopback does that); -errno, also when the
 * channel is shut down meanwhile. Without the feature: 0.
 */
int qio_channel_flush(QIOChannel *ioc, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* --- at an offset (feature SEEKABLE); wait for the disk, any number of threads at once --- */

/* Bytes moved, which may be fewer than asked; 0 at the end of the file; -errno. */
ssize_t qio_channel_preadv(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           GError **errp);
ssize_t qio_channel_pwritev(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            GError **errp);
/* All bytes: 0, or -errno; -EPIPE when the file ends before that. */
int qio_channel_preadv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int qio_channel_pwritev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Moves the stream's position, as lseek(2): the new one in bytes, or -errno. */
off_t qio_channel_seek(QIOChannel *ioc, off_t offset, int whence, GError **errp);

/* --- life and tuning --- */

/*
 * Ends the conversation: waiters wake, reads return 0, writes fail with -EPIPE. Any thread;
 * idempotent. The descriptor stays open until the last reference goes.
 */
void qio_channel_shutdown(QIOChannel *ioc, QIOChannelShutdown how);
/* Both directions. */
bool qio_channel_is_shut_down(const QIOChannel *ioc);
/*
 * Releases the descriptor and tells whether everything that was written has arrived, as far as that
 * can be known. A file reports its write-back error; a command its exit status, which the call
 * waits for. No other call uses the channel any more; idempotent. A drop of the last reference does
 * the same without waiting and without the result. 0, or -errno.
 */
int qio_channel_close(QIOChannel *ioc, GError **errp);
/* Forgets the event loop it was used in; no call may be waiting. The channel's thread. */
void qio_channel_detach_aio_context(QIOChannel *ioc);
/*
 * Calls cb(opaque) in ctx's thread whenever the direction is ready while no coroutine waits for it.
 * Ready means: bytes, the end of the stream or an error to be read; room to write. A user that
 * works by callbacks needs it, and so does an idle connection that must learn that its peer left.
 * The callback must read (write), shut down, or unset the watch, else it is called again at once.
 * NULL unsets. ctx's thread. A channel that never waits (memory, regular files) is ready always.
 */
void qio_channel_set_watch(QIOChannel *ioc, AioContext *ctx, QIOChannelDirection dir,
                           QIOChannelWatchFunc *cb, void *opaque);
void qio_channel_set_cork(QIOChannel *ioc, bool on);
void qio_channel_set_delay(QIOChannel *ioc, bool on);

#endif
