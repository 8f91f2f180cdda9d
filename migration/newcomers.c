/* SPDX-License-Identifier: GPL-2.0-or-later */
/* MigrationNewcomers: a coroutine for each peer, which ends when the peer has said what it is. */
#include "migration/newcomers.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include "crypto/tlscreds.h"
#include "io/channel-deadline.h"
#include "io/channel-tls.h"
#include "migration/multifd-packet.h"
#include "migration/savevm.h"
#include "util/bswap.h"
#include "util/error.h"
#include "util/queue.h"
#include "util/timer.h"

G_STATIC_ASSERT(MIGRATION_HELLO_MAX == MULTIFD_HANDSHAKE_BYTES);

typedef struct Newcomer {
    MigrationNewcomers *set; /* NULL: it was dropped */
    QIOChannel *conn;        /* owned: the connection, to shut down and to look at */
    QIOChannel *ioc;         /* owned: what the stream goes through, conn itself without TLS */
    bool tls, only;
    bool heard; /* it has sent something */
    MigrationHello hello;
    GError *err; /* why it is not the source; NULL with `left`, or if it is */
    bool left;   /* it closed the connection without a byte */
    TAILQ_ENTRY(Newcomer) next;
} Newcomer;

struct MigrationNewcomers {
    TAILQ_HEAD(, Newcomer) all; /* the oldest is the first */
    unsigned n;
    MigrationChannelFunc *func;
    void *opaque;
    int64_t next_report_ns; /* QEMU_CLOCK_REALTIME: failures before that are only counted */
    unsigned unreported;
    uint64_t connections; /* so far */
    bool lenient;
};

/* --- slots --- */

static unsigned slots_max(void)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    return MIGRATION_SPARE_SLOTS + 1 +
           (migrate_multifd(settings) ? migrate_multifd_channels(settings) : 0);
}

/* Not a byte so far, as the kernel knows and not as the loop has come round to notice. */
static bool is_silent(const Newcomer *nc)
{
    struct pollfd pfd = {.events = POLLIN};

    if (nc->heard) {
        return false;
    }
    pfd.fd = nc->conn->klass->poll_fd(nc->conn, QIO_CHANNEL_READ, &pfd.events);
    return pfd.fd < 0 || poll(&pfd, 1, 0) == 0;
}

static void leave_set(Newcomer *nc)
{
    TAILQ_REMOVE(&nc->set->all, nc, next);
    nc->set->n--;
    nc->set = NULL;
}

bool migration_newcomers_speak(const MigrationNewcomers *set)
{
    const Newcomer *nc;

    TAILQ_FOREACH(nc, &set->all, next) {
        if (!is_silent(nc)) {
            return true;
        }
    }
    return false;
}

/* Its coroutine wakes, finds itself dropped, and frees it. */
static void drop(Newcomer *nc)
{
    leave_set(nc);
    qio_channel_shutdown(nc->conn, QIO_CHANNEL_SHUTDOWN_BOTH);
}

static void make_room(MigrationNewcomers *set)
{
    Newcomer *nc;

    TAILQ_FOREACH(nc, &set->all, next) {
        if (is_silent(nc)) {
            break;
        }
    }
    drop(nc ? nc : TAILQ_FIRST(&set->all));
}

/* --- what a peer says; its coroutine --- */

/* Waits for the first byte, which stays to be read. False: the peer has gone, or the time is over. */
static bool coroutine_fn hear_something(Newcomer *nc)
{
    QIOChannelDeadline deadline;
    uint8_t byte;
    struct iovec iov = {&byte, 1};
    ssize_t n = -EAGAIN;
    int ret = 0;

    qio_channel_deadline_start(&deadline, nc->conn, nc->tls ? MIGRATION_HANDSHAKE_NS : 0);
    while (n == -EAGAIN && ret == 0) {
        ret = qio_channel_deadline_co_wait(&deadline, QIO_CHANNEL_READ);
        if (ret == 0) {
            n = qio_channel_readv_full(nc->conn, &iov, 1, NULL, QIO_CHANNEL_READ_FLAG_MSG_PEEK,
                                       NULL);
        }
    }
    qio_channel_deadline_stop(&deadline);
    qio_channel_detach_aio_context(nc->conn);
    if (ret == -ETIMEDOUT) {
        error_setg(&nc->err, "the TLS handshake was not begun in time");
    }
    nc->heard = n > 0;
    nc->left = !nc->heard && !nc->err;
    return nc->heard;
}

static bool coroutine_fn say_hello(Newcomer *nc)
{
    MigrationHello *hello = &nc->hello;
    int ret;

    hello->n = MULTIFD_FIRST_BYTES;
    ret = qio_channel_co_read_all_eof(nc->ioc, hello->bytes, hello->n, &nc->err);
    if (ret <= 0) {
        nc->left = ret == 0;
        return false;
    }
    if (multifd_is_handshake(hello->bytes)) {
        hello->n = MULTIFD_HANDSHAKE_BYTES;
        return qio_channel_co_read_all(nc->ioc, hello->bytes + MULTIFD_FIRST_BYTES,
                                       MULTIFD_HANDSHAKE_BYTES - MULTIFD_FIRST_BYTES,
                                       &nc->err) == 0;
    }
    if (ldul_be_p(hello->bytes) != QEMU_VM_FILE_MAGIC) {
        error_setg(&nc->err, "Not a migration stream, magic: %08x != %08x", ldul_be_p(hello->bytes),
                   QEMU_VM_FILE_MAGIC);
        return false;
    }
    return true;
}

static void coroutine_fn prove(Newcomer *nc)
{
    if (!nc->only && !hear_something(nc)) {
        return;
    }
    if (nc->tls && qio_channel_tls_co_handshake((QIOChannelTLS *)nc->ioc, MIGRATION_HANDSHAKE_NS,
                                                &nc->err) < 0) {
        return;
    }
    if (!nc->only) {
        (void)say_hello(nc);
    }
    qio_channel_detach_aio_context(nc->ioc);
}

/* --- what becomes of it --- */

static void report(MigrationNewcomers *set, GError *err)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    if (now < set->next_report_ns) {
        set->unreported++;
        g_error_free(err);
        return;
    }
    g_prefix_error(&err, "incoming migration: a peer was turned away: ");
    if (set->unreported) {
        g_prefix_error(&err, "%u more peers failed, and: ", set->unreported);
        set->unreported = 0;
    }
    set->next_report_ns = now + NANOSECONDS_PER_SECOND;
    if (set->lenient) {
        warn_report("%s", err->message);
        g_error_free(err);
    } else {
        error_report_err(err);
    }
}

/* The user may free the set, and more: not on the coroutine's stack. */
static void settle_bh(void *opaque)
{
    Newcomer *nc = opaque;
    MigrationNewcomers *set = nc->set;

    if (set) {
        leave_set(nc);
        if (!nc->err && !nc->left) {
            set->func(g_steal_pointer(&nc->ioc), &nc->hello, NULL, set->opaque);
        } else if (nc->only) {
            g_prefix_error(&nc->err, "incoming migration: ");
            set->func(NULL, NULL, g_steal_pointer(&nc->err), set->opaque);
        } else if (nc->err) {
            report(set, g_steal_pointer(&nc->err));
        }
    }
    if (nc->ioc) { /* it was not handed over; the event loop may keep the descriptor for a while */
        qio_channel_shutdown(nc->conn, QIO_CHANNEL_SHUTDOWN_BOTH);
    }
    g_clear_error(&nc->err);
    qio_channel_unref(nc->ioc);
    qio_channel_unref(nc->conn);
    g_free(nc);
}

static void coroutine_fn newcomer_co_entry(void *opaque)
{
    prove(opaque);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), settle_bh, opaque);
}

/* The server's end over conn; NULL with an error. */
static QIOChannelTLS *new_tls_server(QIOChannel *conn, const MigrationSettings *settings,
                                     GError **errp)
{
    const char *authz = settings->params.tls_authz;
    QCryptoTLSCreds *creds = qcrypto_tls_creds_acquire(settings->params.tls_creds,
                                                       QCRYPTO_TLS_CREDS_ENDPOINT_SERVER, errp);
    QIOChannelTLS *tls =
        creds ? qio_channel_tls_new_server(conn, creds, *authz ? authz : NULL, errp) : NULL;

    qcrypto_tls_creds_release(creds);
    return tls;
}

void migration_newcomers_add(MigrationNewcomers *set, QIOChannel *ioc, bool only)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();
    Newcomer *nc;

    if (set->n >= slots_max()) {
        make_room(set);
    }
    nc = g_new0(Newcomer, 1);
    nc->set = set;
    nc->conn = ioc;
    nc->only = only;
    nc->hello.serial = ++set->connections;
    nc->tls = migrate_tls(settings);
    TAILQ_INSERT_TAIL(&set->all, nc, next);
    set->n++;
    nc->ioc = nc->tls ? QIO_CHANNEL(new_tls_server(ioc, settings, &nc->err)) : qio_channel_ref(ioc);
    if (nc->ioc) {
        qemu_coroutine_enter(qemu_coroutine_create(newcomer_co_entry, nc));
    } else {
        settle_bh(nc);
    }
}

/* --- life --- */

MigrationNewcomers *migration_newcomers_new(MigrationChannelFunc *func, void *opaque)
{
    MigrationNewcomers *set = g_new0(MigrationNewcomers, 1);

    TAILQ_INIT(&set->all);
    set->func = func;
    set->opaque = opaque;
    return set;
}

void migration_newcomers_set_lenient(MigrationNewcomers *set)
{
    set->lenient = true;
}

void migration_newcomers_free(MigrationNewcomers *set)
{
    if (!set) {
        return;
    }
    while (!TAILQ_EMPTY(&set->all)) {
        drop(TAILQ_FIRST(&set->all));
    }
    g_free(set);
}
