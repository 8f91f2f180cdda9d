/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the NBD server.
 *
 * A connection (NbdConn) starts in the main thread, where one coroutine takes it through the
 * handshake. With the choice of an export it moves to the export's thread and stays there, and the
 * same coroutine becomes its reader. Each request gets a coroutine of its own, and replies leave in
 * the order in which they are ready. It ends in the main thread, where it is freed.
 *
 * Memory of a connection is bounded by NBD_CONN_MAX_REQUESTS and NBD_CONN_MAX_BYTES: the reader
 * stops reading at either limit and goes on as replies have left. A client that does not read its
 * replies holds up only itself.
 *
 * Drained sections: requests count as in flight of the export's BlockBackend until their block work
 * is done. Then replies may go out, but a coroutine that would wait for the socket parks instead.
 * So the graph may move to another thread, and no handler stays behind in the old one.
 */
#ifndef FERRY_BLOCK_NBD_SERVER_INT_H
#define FERRY_BLOCK_NBD_SERVER_INT_H

#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "block/export.h"
#include "block/nbd/proto.h"
#include "block/nbd/server.h"
#include "crypto/tlscreds.h"
#include "io/channel-socket.h"
#include "io/channel.h"
#include "util/queue.h"

#define NBD_CONN_MAX_REQUESTS 64
#define NBD_CONN_MAX_BYTES    (64u << 20) /* of payload buffers of requests in flight */
#define NBD_CONN_READ_BYTES   (64u << 10) /* receive buffer */
#define NBD_MAX_CONTEXTS      64          /* metadata contexts a client may select */
#define NBD_MAX_EXTENTS       2048        /* in one block status reply, for each context */
#define NBD_READ_MAX_CHUNKS   16          /* pieces of one read reply */

typedef struct NbdServer NbdServer;
typedef struct NbdConn NbdConn;
typedef struct NbdReq NbdReq;

/* --- exports --- */

typedef struct NbdExportBitmap {
    char *context; /* "qemu:dirty-bitmap:NAME" */
    BdrvDirtyBitmap *bitmap;
} NbdExportBitmap;

typedef struct NbdExport {
    BlockExport common;
    /* Set once. */
    uint64_t serial; /* no other export ever has the same, of whatever name */
    char *name;
    char *description; /* or NULL */
    bool writable;
    bool allocation_depth;
    NbdExportBitmap *bitmaps;
    unsigned n_bitmaps;

    TAILQ_ENTRY(NbdExport) next; /* main thread: the exports that are offered */
    bool offered;                /* main thread: in that list */

    GMutex lock; /* of conns: changed in the export's thread, walked in the main thread as well */
    TAILQ_HEAD(, NbdConn) conns;

    bool quiesced; /* export's thread: in a drained section */
} NbdExport;

NbdExport *nbd_export_find(const char *name);
/* The next export that is offered; NULL starts and ends. */
NbdExport *nbd_export_next(NbdExport *exp);
/* Transmission flags for a client with or without structured replies. */
uint16_t nbd_export_flags(const NbdExport *exp, bool structured);
int64_t nbd_export_size(const NbdExport *exp);

/* --- connections --- */

/*
 * The metadata contexts a client has selected, and of which export. Their ids are their positions.
 */
typedef enum NbdContextKind {
    NBD_CTX_ALLOCATION,
    NBD_CTX_ALLOCATION_DEPTH,
    NBD_CTX_BITMAP,
} NbdContextKind;

typedef struct NbdContext {
    NbdContextKind kind;
    unsigned bitmap; /* NBD_CTX_BITMAP: index in exp->bitmaps */
} NbdContext;

typedef struct NbdContexts {
    uint64_t export_serial;
    unsigned n;
    NbdContext list[NBD_MAX_CONTEXTS];
} NbdContexts;

/* A coroutine that would wait for the socket, but the export is quiesced. */
typedef struct NbdParked {
    Coroutine *co; /* to be resumed when the drained section ends */
    bool expected; /* the drained section waits for this one to park */
} NbdParked;

/* Buffers by power-of-two size, kept for the next request. */
#define NBD_POOL_CLASSES    14 /* 4 KiB .. 32 MiB */
#define NBD_POOL_MIN_SHIFT  12
#define NBD_POOL_KEEP_BYTES (8u << 20)

typedef struct NbdPool {
    GPtrArray *free[NBD_POOL_CLASSES];
    size_t kept;
} NbdPool;

struct NbdConn {
    QIOChannelSocket *sioc;
    QIOChannel *ioc;                     /* the socket, or TLS over it */
    char *peer;                          /* for messages */
    TAILQ_ENTRY(NbdConn) next_in_server; /* main thread */
    TAILQ_ENTRY(NbdConn) next_in_export; /* exp->lock */

    /* handshake; main thread */
    QEMUTimer *deadline;
    bool fixed_newstyle, no_zeroes, structured, tls;
    NbdContexts contexts;
    NbdExport *exp; /* chosen; the connection holds a reference */

    /* transmission; export's thread */
    uint8_t *rbuf; /* received and not yet looked at: [rpos, rlen) */
    size_t rpos, rlen;
    NbdParked reader, sender;
    unsigned busy;                /* requests in the block layer */
    unsigned held;                /* requests whose reply has not left */
    size_t held_bytes;            /* of their buffers */
    Coroutine *waiting_room;      /* the reader, waiting for held or held_bytes to fall */
    TAILQ_HEAD(, NbdReq) replies; /* ready to leave */
    size_t sent;                  /* bytes of the first of them that have left */
    AioContext *ctx;              /* the export's, as of now */
    QEMUBH *flush_bh;             /* in ctx: sends what has become ready in this turn of the loop */
    bool sending;                 /* a coroutine waits for the socket to take more */
    bool dead;                    /* no more replies leave */
    NbdPool pool;
    NbdReq *spare; /* request structs for reuse, linked by spare_next */
};

/* A request from its header to the last byte of its reply. */
struct NbdReq {
    NbdConn *conn;
    NbdRequest wire;
    uint8_t *buf; /* payload, or what the reply carries */
    size_t buf_size;
    /* the reply */
    uint8_t head[NBD_READ_MAX_CHUNKS * (NBD_CHUNK_BYTES + NBD_CHUNK_HOLE_BYTES)];
    size_t head_used;
    struct iovec iov[2 * NBD_READ_MAX_CHUNKS];
    unsigned niov;
    size_t reply_bytes;
    TAILQ_ENTRY(NbdReq) next;
    NbdReq *spare_next;
};

/*
 * server-handshake.c: 0 when transmission starts (conn->exp is set, referenced), -errno when the
 * connection is over.
 */
int coroutine_fn nbd_conn_co_handshake(NbdConn *conn, GError **errp);
/* server-tls.c: STARTTLS was acknowledged; conn->ioc becomes a TLS channel. 0 or -errno. */
int coroutine_fn nbd_conn_co_starttls(NbdConn *conn, GError **errp);
/*
 * server-conn.c: serves conn->exp until the client leaves or is thrown out. Runs in the export's
 * thread.
 */
void coroutine_fn nbd_conn_co_serve(NbdConn *conn);
/* The export's drained section. Export's thread. */
void nbd_conn_drained_begin(NbdConn *conn);
void nbd_conn_drained_end(NbdConn *conn);
/* Waits for the socket; parks while the export is quiesced. 0 or -errno. */
int coroutine_fn nbd_conn_co_wait(NbdConn *conn, QIOChannelDirection dir);
/* Returns when the export is not quiesced; may be in another thread than before. */
void coroutine_fn nbd_conn_co_park(NbdConn *conn, NbdParked *who);
/* `who` has ended: no drained section waits for it any longer. */
void nbd_conn_settle(NbdConn *conn, NbdParked *who);
/* The reader may be waiting for a request to end or its reply to leave. */
void nbd_conn_wake_reader(NbdConn *conn);

/* server-request.c: does the request and queues its reply. Coroutine entry; opaque is an NbdReq. */
void coroutine_fn nbd_req_co_entry(void *opaque);

/* server-reply.c */
bool nbd_req_alloc_buf(NbdReq *req, size_t bytes); /* counts towards held_bytes */
/* Each of these completes the reply and queues it; the request is not the caller's any more. */
void nbd_req_reply_error(NbdReq *req, int err, const char *message); /* err: positive errno */
void nbd_req_reply_done(NbdReq *req);
/* Pieces of a read's reply, in order; data and holes of buf, then nbd_req_queue(). */
void nbd_req_add_data(NbdReq *req, uint32_t pos, uint32_t bytes, bool last);
void nbd_req_add_hole(NbdReq *req, uint32_t pos, uint32_t bytes, bool last);
/* Raw bytes of a reply; they stay valid until the request is freed. */
void nbd_req_add_bytes(NbdReq *req, const void *data, size_t bytes);
void nbd_req_queue(NbdReq *req);
NbdReq *nbd_req_new(NbdConn *conn);
void nbd_req_free(NbdReq *req);
/*
 * Sends what is ready, or leaves it to a coroutine when the socket is full. opaque is the NbdConn.
 */
void nbd_conn_flush(void *opaque);
/* Drops all replies that wait to leave. */
void nbd_conn_drop_replies(NbdConn *conn);
void nbd_conn_free_buffers(NbdConn *conn);

/* server-status.c: answers BLOCK_STATUS. */
void coroutine_fn nbd_req_co_block_status(NbdReq *req);

/* server.c */
const NbdServerConfig *nbd_server_config(void);
QCryptoTLSCreds *nbd_server_creds(void); /* NULL: no TLS */
#endif
