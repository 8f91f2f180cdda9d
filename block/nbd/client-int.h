/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the NBD client.
 *
 * A client (one per node) has one connection, or several where the server says that they see each
 * other's writes. Requests go to the connection with the fewest in flight. All of it runs in the
 * node's AioContext.
 *
 * A connection's states (NbdLinkState):
 *
 *   state     event                        next     by                       requests
 *   DOWN      a request or a retry timer   DIALLING nbd_link_dial()          wait (reconnect-delay) or fail
 *   DIALLING  handshake done               UP       nbd_link_dialled()       those that wait go out
 *   DIALLING  refused, timed out           DOWN     nbd_link_dialled()       go on waiting; next try after the back-off
 *   UP        peer gone or shutting down,  BROKEN   nbd_link_break()         nothing more is sent or believed
 *             protocol error, cancelled
 *   BROKEN    the reader has ended         DOWN     nbd_link_end_broken()    those in flight are tried again, or fail
 *   any       node closed                  CLOSED   nbd_client_close()       fail
 *
 * A dial (NbdDial) owns what it needs and may be abandoned at any moment, also while a name server
 * keeps it waiting. It then ends by itself, and no coroutine waits for it.
 *
 * A reader coroutine exists while requests are in flight; without any, a watch on the socket
 * notices when the server leaves. So an idle connection has no coroutine, and the node can move to
 * another thread.
 */
#ifndef FERRY_BLOCK_NBD_CLIENT_INT_H
#define FERRY_BLOCK_NBD_CLIENT_INT_H

#include "block/block_int.h"
#include "block/nbd/client.h"
#include "block/nbd/proto.h"
#include "crypto/tlscreds.h"
#include "io/channel-socket.h"
#include "io/channel.h"
#include "util/co-lock.h"
#include "util/yank.h"

#define NBD_LINK_MAX_REQUESTS 64
#define NBD_LINK_READ_BYTES   (64u << 10)
#define NBD_MAX_LINKS         16
/* Links opened by default where the server's multi-conn flag allows it. */
#define NBD_DEFAULT_LINKS 2
/* Extents in one reply: a server may send as many as the range has; two millions are taken. */
#define NBD_MAX_STATUS_PAYLOAD (16u << 20)
/* Of which so many are kept for the questions that follow. */
#define NBD_MAX_STATUS_AHEAD 4096
/* A server has so long to accept a connection and to finish the handshake. */
#define NBD_HANDSHAKE_NS (30 * NANOSECONDS_PER_SECOND)

/* --- what the handshake found out --- */

typedef struct NbdExportInfo {
    uint64_t size;
    uint16_t flags; /* NBD_FLAG_* */
    bool structured;
    uint32_t min_block, pref_block, max_block; /* bytes; powers of two (max: any multiple of min) */
    bool has_context;                          /* block status can be asked */
    uint32_t context_id;
} NbdExportInfo;

/* Where to connect and what to ask for. Immutable, shared by dials; atomic reference count. */
typedef struct NbdTarget {
    int refcount;
    SocketAddress *addr;
    char *export;
    char *context; /* metadata context for block status */
    bool context_required;
    QCryptoTLSCreds *tls_creds; /* NULL: no TLS */
    char *tls_hostname;         /* name that the server must prove to have; NULL: none */
} NbdTarget;

NbdTarget *nbd_target_ref(NbdTarget *target);
void nbd_target_unref(NbdTarget *target);

/*
 * Takes a fresh connection through the handshake; on success *ioc may have become a TLS channel. 0
 * or -errno. Reads nothing ahead.
 */
int coroutine_fn nbd_client_co_handshake(QIOChannel **ioc, const NbdTarget *target,
                                         NbdExportInfo *info, GError **errp);

/*
 * client-tls.c: the server has agreed to TLS. On success and failure *ioc is what has to be shut
 * down from now on. 0 or -errno.
 */
int coroutine_fn nbd_client_co_start_tls(QIOChannel **ioc, const NbdTarget *target, GError **errp);

/* --- requests --- */

typedef struct NbdExtent {
    uint32_t bytes;
    uint32_t flags;
} NbdExtent;

/* A request in flight; lives on its coroutine's stack. */
typedef struct NbdPending {
    NbdRequest wire;
    QEMUIOVector *qiov; /* READ, WRITE */
    size_t qiov_offset;
    bool from_file; /* WRITE: the payload is at file_offset of file_fd */
    int file_fd;
    int64_t file_offset;
    /* the reply */
    Coroutine *co; /* waits for it; NULL while the request is still being sent */
    bool done;
    bool lost;        /* the connection went before the reply came */
    int ret;          /* 0 or -errno as the server says */
    uint32_t covered; /* READ: bytes from the start that have come, in order */
    GArray *islands;  /* READ: ReadIsland, what has come out of order; NULL: nothing */
    NbdExtent extent; /* BLOCK_STATUS: the first one */
    bool have_extent;
    GArray *more; /* BLOCK_STATUS: NbdExtent, those behind it; NULL: not wanted */
} NbdPending;

/* --- connections --- */

typedef struct NbdClient NbdClient;
typedef struct NbdDial NbdDial;

typedef enum NbdLinkState {
    NBD_LINK_DOWN,
    NBD_LINK_DIALLING,
    NBD_LINK_UP,
    NBD_LINK_BROKEN,
    NBD_LINK_CLOSED,
} NbdLinkState;

typedef struct NbdLink {
    NbdClient *client;
    unsigned index;
    NbdLinkState state;
    bool wanted;       /* is to be kept up; the first always is */
    bool useless;      /* the server does not want another connection: leave it */
    unsigned failures; /* dials in a row */

    NbdDial *dial;
    QIOChannel *ioc; /* changed under client->ioc_lock */
    CoMutex send_lock;
    NbdPending *slots[NBD_LINK_MAX_REQUESTS];
    uint64_t next_seq;
    unsigned in_flight;
    bool reading; /* the reader exists */
    uint8_t *rbuf;
    size_t rpos, rlen;
    unsigned senders;   /* requests not yet sent to their end */
    NbdExportInfo info; /* as of this connection */
} NbdLink;

/*
 * Extents that a reply told besides the one asked for. A walk over the disk in order takes them one
 * by one, each once. Any other question, any write of this client and one second end it, as the
 * server may have other clients.
 */
typedef struct NbdStatusAhead {
    int64_t offset;     /* where the next one begins; -1: there is none */
    GArray *extents;    /* NbdExtent; NULL before the first */
    guint pos;          /* the next one */
    int64_t expires_ns; /* QEMU_CLOCK_REALTIME */
    unsigned changes;   /* counts what has ended it: a reply that raced with a write is not kept */
} NbdStatusAhead;

struct NbdClient {
    BlockDriverState *bs;
    AioContext *ctx;
    NbdTarget *target;
    QCryptoTLSCreds *tls_creds; /* acquired: cannot be deleted while the node is there */
    NbdExportInfo info;         /* as of the first connection; later ones have to be compatible */
    uint32_t reconnect_delay;   /* seconds */
    unsigned max_links;
    NbdLink *links[NBD_MAX_LINKS];
    unsigned n_links;   /* made */
    unsigned next_link; /* round robin among equals */
    GMutex ioc_lock;
    Yankable *yank;
    QEMUBH *opening_bh; /* while the node is being opened: gives up; under ioc_lock */

    CoQueue waiting;           /* requests that wait for a connection or a slot */
    unsigned n_waiting;        /* those that wait for a connection */
    int64_t patience_until_ns; /* QEMU_CLOCK_REALTIME: requests may wait so long */
    QEMUTimer *patience;       /* fires then; idle while drained and without waiters */
    bool last_chance;          /* the wait at the end of the process was granted */
    bool drained;
    unsigned refusing; /* > 0: requests fail at once */
    int cancelled;     /* atomic: requests do not wait until a connection has come up again */
    int cancels;       /* atomic: how often nbd_client_cancel() was called */
    NbdStatusAhead ahead;
    char *last_error;  /* why the connection is down */
    QEMUBH *cancel_bh; /* in ctx; scheduled by nbd_client_cancel() */
};

/* client-link.c */
NbdLink *nbd_link_new(NbdClient *client, unsigned index);
void nbd_link_free(NbdLink *link);
/* Starts to connect, after a back-off that grows with the failures. */
void nbd_link_dial(NbdLink *link);
/* Lets go of the dial, if there is one. */
void nbd_link_abandon_dial(NbdLink *link);
/*
 * Makes an established connection the link's; it is UP afterwards. Takes over the reference to ioc.
 */
void nbd_link_set_up(NbdLink *link, QIOChannel *ioc, const NbdExportInfo *info);
/*
 * Sends the disconnect request without waiting: it has no answer, and a full socket is no reason to
 * stay. The handshake is over, and no request is partly sent.
 */
void nbd_client_say_goodbye(QIOChannel *ioc);
/* Gives up the connection: nothing it says counts any more. Reason for messages. */
void nbd_link_break(NbdLink *link, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/*
 * Sends the request on a link that is UP and has a free slot, waits for its reply. 0 or -errno from
 * the server; p->lost when the connection went.
 */
int coroutine_fn nbd_link_co_request(NbdLink *link, NbdPending *p);
/* An idle link forgets the event loop; and takes notice of its socket again. */
void nbd_link_rest(NbdLink *link);
void nbd_link_watch(NbdLink *link);

/* client-status.c */
int coroutine_fn nbd_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     BdrvBlockStatus *status);
/* What was told ahead does not count any more: to be called as a change begins and as it ends. */
void nbd_status_forget(NbdClient *client);

/* client.c: sends a request, again where the connection was lost. 0 or -errno. */
int coroutine_fn nbd_client_co_request(NbdClient *client, NbdPending *p);

/* client-reply.c: the reader. Coroutine entry; opaque is the link. */
void coroutine_fn nbd_link_co_read(void *opaque);
/* Frees what the checks of a reply needed. */
void nbd_pending_clear(NbdPending *p);
/* The request has its answer. */
void nbd_pending_finish(NbdLink *link, NbdPending *p);

/* client-pool.c: which connection, and waiting for one. */
/*
 * A link that is UP with a free slot; NULL: there is none and waiting is not allowed (any longer).
 */
NbdLink *coroutine_fn nbd_client_co_get_link(NbdClient *client);
void nbd_client_link_up(NbdClient *client); /* one has come up */
void nbd_client_slot_freed(NbdClient *client);
void nbd_client_link_lost(NbdClient *client); /* one has gone down */
/* Requests that wait for a connection fail now. Client's thread. */
void nbd_client_stop_waiting(NbdClient *client);
/* The node has moved to ctx, or is new; drained. */
void nbd_client_enter_context(NbdClient *client, AioContext *ctx);
void nbd_client_leave_context(NbdClient *client);
/* Cuts the connections, as if the network had failed; a YankFn. Any thread. */
void nbd_client_yank(void *opaque);
/* Ends all requests at once with an error. Any thread. */
void nbd_client_cancel(NbdClient *client);
void nbd_client_drain_begin(NbdClient *client);
void nbd_client_drain_end(NbdClient *client);
void nbd_client_close(NbdClient *client);

/* client-tls.c: takes credentials and host name from the options. Main thread. */
bool nbd_client_set_tls(NbdClient *client, const BlockdevOptionsNbd *opts, GError **errp);

#endif
