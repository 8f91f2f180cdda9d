/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOChannel: a stream of bytes to a peer, over whatever carries it: a socket, TLS on another
 * channel, a pipe, memory.
 *
 * A channel never blocks the thread. The plain calls move what can be moved now; the _co_ calls try
 * that first and wait in the event loop only when the kernel says "not yet". At most one coroutine
 * reads and one writes at a time.
 *
 * Threads: a channel is used in one AioContext at a time, the one its waiting coroutines run in. An
 * idle channel (nobody waits) may move: qio_channel_detach_aio_context() in the old thread, then
 * simply use it in the new one. qio_channel_shutdown(), qio_channel_ref() and qio_channel_unref()
 * may be called in any thread.
 *
 * Results: bytes moved, 0 for end of stream, or -errno. -EAGAIN means "would block" and sets no
 * error; every other failure sets errp. The caller owns one reference to a new channel; the last
 * one closes it.
 */
#ifndef FERRY_IO_CHANNEL_H
#define FERRY_IO_CHANNEL_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "util/aio.h"

typedef struct QIOChannel QIOChannel;
typedef struct QIOChannelClass QIOChannelClass;

typedef enum QIOChannelFeature {
    QIO_CHANNEL_FEATURE_FD_PASS = 0x01,  /* file descriptors travel with the bytes */
    QIO_CHANNEL_FEATURE_SHUTDOWN = 0x02, /* shutdown reaches the peer */
    QIO_CHANNEL_FEATURE_SEEKABLE = 0x04,
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

/* Most file descriptors that travel with one message; more is an error on either side. */
#define QIO_CHANNEL_MAX_FDS 16

/*
 * What carries the bytes. Called in the channel's thread, never concurrently with itself, unless
 * said otherwise.
 */
struct QIOChannelClass {
    const char *name;
    size_t instance_size; /* QIOChannel is the first member; zeroed */

    /*
     * Moves what can be moved without waiting; niov is 1..IOV_MAX and no element is empty. fds/nfds
     * are NULL unless the channel has FD_PASS; received descriptors are close-on-exec and the
     * caller's, in an array to g_free().
     */
    ssize_t (*readv)(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds, size_t *nfds,
                     GError **errp);
    ssize_t (*writev)(QIOChannel *ioc, const struct iovec *iov, size_t niov, const int *fds,
                      size_t nfds, GError **errp);

    /* Optional: bytes are already at hand, so a reader must not wait for the descriptor. */
    bool (*read_pending)(QIOChannel *ioc);
    /*
     * Optional: the descriptor is readable while nobody reads. False: that was a message of the
     * channel's own (TLS), nothing for the user has come.
     */
    bool (*idle_event)(QIOChannel *ioc);
    /*
     * What a waiter for `dir` has to poll: a descriptor, and in *events POLLIN or POLLOUT (TLS may
     * have to read in order to write). -1: nothing can be waited for (closed).
     */
    int (*poll_fd)(QIOChannel *ioc, QIOChannelDirection dir, short *events);

    /*
     * Any thread. After it, reads end with 0 and writes with -EPIPE; whoever waits in the
     * descriptor is woken. 0 or -errno.
     */
    int (*shutdown)(QIOChannel *ioc, QIOChannelShutdown how);
    /*
     * The last reference is gone, or the owner closes early: release the descriptor. May run twice.
     */
    void (*close)(QIOChannel *ioc);
    void (*finalize)(QIOChannel *ioc); /* optional: frees what the instance owns besides */

    /* Optional: the socket that takes bytes as they are, for sendfile(2); -1 when closed. */
    int (*raw_socket)(const QIOChannel *ioc);
    void (*set_cork)(QIOChannel *ioc, bool on); /* optional: hold back partial segments */
    void (*set_delay)(QIOChannel *ioc,
                      bool on); /* optional: false: send small messages at once (TCP_NODELAY) */
};

/* Members are the implementation's; users go through the functions. */
struct QIOChannel {
    const QIOChannelClass *klass;
    int refcount;      /* atomic */
    unsigned features; /* QIOChannelFeature */
    char *name;        /* for traces and errors */
    int shut;          /* atomic: QIOChannelShutdown asked for */

    AioContext *ctx;        /* where handlers are registered, NULL: nowhere */
    int polled_fd;          /* the descriptor they are registered for */
    bool poll_in, poll_out; /* registered; may outlive the waiter until they fire without one */
    Coroutine *reader, *writer;
    short reader_events, writer_events;
    bool reader_interrupted, writer_interrupted;
    void (*idle_cb)(void *opaque);
    void *idle_opaque;
};

/* For implementations: a zeroed instance with one reference. */
QIOChannel *qio_channel_alloc(const QIOChannelClass *klass, const char *name);

QIOChannel *qio_channel_ref(QIOChannel *ioc);
void qio_channel_unref(QIOChannel *ioc); /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QIOChannel, qio_channel_unref)

void qio_channel_set_name(QIOChannel *ioc, const char *name);
const char *qio_channel_get_name(const QIOChannel *ioc);
bool qio_channel_has_feature(const QIOChannel *ioc, QIOChannelFeature feature);

/* --- without waiting --- */

ssize_t qio_channel_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp);
ssize_t qio_channel_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, GError **errp);
/*
 * With descriptors. Received ones (*fds, g_free()) are the caller's to close; *fds is NULL when
 * none came.
 */
ssize_t qio_channel_readv_full(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                               size_t *nfds, GError **errp);
/* Sent descriptors stay the caller's; they travel with the first byte. */
ssize_t qio_channel_writev_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const int *fds, size_t nfds, GError **errp);

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
int coroutine_fn qio_channel_co_read_all_eof(QIOChannel *ioc, void *buf, size_t bytes,
                                             GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qio_channel_co_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qio_channel_co_write_all(QIOChannel *ioc, const void *buf, size_t bytes,
                                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* --- in threads that run no event loop (they wait in poll(2)) --- */

int qio_channel_readv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;
int qio_channel_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* --- life and tuning --- */

/*
 * Ends the conversation: waiters wake, reads return 0, writes fail with -EPIPE. Any thread;
 * idempotent. The descriptor stays open until the last reference goes.
 */
void qio_channel_shutdown(QIOChannel *ioc, QIOChannelShutdown how);
bool qio_channel_is_shut_down(const QIOChannel *ioc);
/* Forgets the event loop it was used in; nobody may be waiting. The channel's thread. */
void qio_channel_detach_aio_context(QIOChannel *ioc);
/*
 * Calls cb(opaque) in ctx's thread when bytes or the end of the stream arrive while no coroutine
 * waits to read: how an idle connection learns that its peer left. cb must read, shut down or unset
 * it. NULL unsets. The channel's thread, which runs ctx.
 */
void qio_channel_set_idle_watch(QIOChannel *ioc, AioContext *ctx, void (*cb)(void *opaque),
                                void *opaque);
void qio_channel_set_cork(QIOChannel *ioc, bool on);
void qio_channel_set_delay(QIOChannel *ioc, bool on);

#endif
