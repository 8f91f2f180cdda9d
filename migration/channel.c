/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections of a source: connecting, TLS, and giving up in the middle. */
#include "migration/channel.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "crypto/tlscreds.h"
#include "io/channel-file.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "migration/transport.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/error.h"
#include "util/open.h"
#include "util/queue.h"
#include "util/sockets.h"

/* A peer that does not finish the TLS handshake by then is given up. */
#define TLS_HANDSHAKE_NS (30 * NANOSECONDS_PER_SECOND)

/* A connection in the making, on the stack of the coroutine that makes it. Main loop. */
typedef struct ConnectAttempt {
    QIOChannel *ioc;          /* what to shut down, NULL: nothing yet */
    QIOChannelSocket *socket; /* the same while it connects, else NULL */
    TAILQ_ENTRY(ConnectAttempt) next;
} ConnectAttempt;

struct MigrationConnector {
    int refcount;  /* atomic */
    int cancelled; /* atomic, bool */

    /* Constant. */
    MigrationAddress *addr;
    MigrationSettings *settings;
    QCryptoTLSCreds *creds; /* held; NULL: no TLS */
    int mapped_fd;          /* of an fd: address with mapped-ram: owned, a duplicate; -1: none */

    /* Main loop. */
    int fd; /* of an fd: address, until the main channel takes it; -1: none */
    TAILQ_HEAD(, ConnectAttempt) attempts;
};

static bool connector_take_fd(MigrationConnector *c, GError **errp)
{
    const char *name = c->addr->u.socket.u.fd.str;

    c->fd = named_fd_take(name, errp);
    if (c->fd >= 0 && migrate_mapped_ram(c->settings)) {
        c->mapped_fd = migration_keep_mapped_fd(c->fd, name, errp);
        return c->mapped_fd >= 0;
    }
    return c->fd >= 0;
}

MigrationConnector *migration_connector_new(const MigrationAddress *addr,
                                            MigrationSettings *settings, GError **errp)
{
    g_autoptr(MigrationConnector) c = g_new0(MigrationConnector, 1);

    c->refcount = 1;
    c->fd = c->mapped_fd = -1;
    c->addr = migration_address_copy(addr);
    c->settings = migration_settings_ref(settings);
    TAILQ_INIT(&c->attempts);
    if (!migration_transport_check(addr, settings, errp)) {
        return NULL;
    }
    if (migrate_tls(settings)) {
        c->creds = qcrypto_tls_creds_acquire(settings->params.tls_creds,
                                             QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT, errp);
        if (!c->creds) {
            return NULL;
        }
    }
    /* Names belong to the monitor whose command is running. */
    if (migration_address_is_fd(addr) && !connector_take_fd(c, errp)) {
        return NULL;
    }
    return g_steal_pointer(&c);
}

MigrationConnector *migration_connector_ref(MigrationConnector *c)
{
    __atomic_fetch_add(&c->refcount, 1, __ATOMIC_RELAXED);
    return c;
}

void migration_connector_unref(MigrationConnector *c)
{
    if (!c || __atomic_fetch_sub(&c->refcount, 1, __ATOMIC_ACQ_REL) != 1) {
        return;
    }
    if (c->fd >= 0) {
        close(c->fd);
    }
    if (c->mapped_fd >= 0) {
        close(c->mapped_fd);
    }
    qcrypto_tls_creds_release(c->creds);
    migration_settings_unref(c->settings);
    qapi_free_MigrationAddress(c->addr);
    g_free(c);
}

/* --- connecting; main loop --- */

static bool connector_cancelled(const MigrationConnector *c, GError **errp)
{
    if (__atomic_load_n(&c->cancelled, __ATOMIC_ACQUIRE)) {
        error_setg(errp, "Connecting was cancelled");
        return true;
    }
    return false;
}

static QIOChannel *coroutine_fn connector_co_open_socket(MigrationConnector *c,
                                                         ConnectAttempt *attempt, GError **errp)
{
    QIOChannelSocket *sioc;
    int fd;

    if (migration_address_is_fd(c->addr)) {
        fd = c->fd;
        c->fd = -1;
        if (fd < 0) {
            error_setg(errp, "The file descriptor '%s' is in use already",
                       c->addr->u.socket.u.fd.str);
            return NULL;
        }
        return migration_open_fd(fd, errp);
    }
    sioc = qio_channel_socket_new();
    attempt->socket = sioc;
    if (qio_channel_socket_co_connect(sioc, &c->addr->u.socket, errp) < 0) {
        attempt->socket = NULL;
        qio_channel_unref(QIO_CHANNEL(sioc));
        return NULL;
    }
    attempt->socket = NULL;
    qio_channel_set_delay(QIO_CHANNEL(sioc), false); /* or a handshake's messages wait 40 ms each */
    return QIO_CHANNEL(sioc);
}

static QIOChannel *coroutine_fn connector_co_open(MigrationConnector *c, ConnectAttempt *attempt,
                                                  GError **errp)
{
    switch (c->addr->transport) {
    case MIGRATION_ADDRESS_TYPE_EXEC:
        return migration_open_exec(
            &c->addr->u.exec, migration_needs_both_ways(c->settings) ? O_RDWR : O_WRONLY, errp);
    case MIGRATION_ADDRESS_TYPE_FILE:
        return migration_open_file(&c->addr->u.file, true, migrate_mapped_ram(c->settings), errp);
    default:
        return connector_co_open_socket(c, attempt, errp);
    }
}

/* Whose certificate the peer must have. */
static const char *connector_tls_hostname(const MigrationConnector *c)
{
    if (*c->settings->params.tls_hostname) {
        return c->settings->params.tls_hostname;
    }
    return c->addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET &&
                   c->addr->u.socket.type == SOCKET_ADDRESS_TYPE_INET
               ? c->addr->u.socket.u.inet.host
               : NULL;
}

/* Takes over `master`; the channel over it. */
static QIOChannel *coroutine_fn connector_co_start_tls(MigrationConnector *c, QIOChannel *master,
                                                       GError **errp)
{
    QIOChannelTLS *tioc =
        qio_channel_tls_new_client(master, c->creds, connector_tls_hostname(c), errp);

    qio_channel_unref(master);
    if (tioc && qio_channel_tls_co_handshake(tioc, TLS_HANDSHAKE_NS, errp) < 0) {
        qio_channel_unref(QIO_CHANNEL(tioc));
        return NULL;
    }
    return (QIOChannel *)tioc;
}

QIOChannel *coroutine_fn migration_connector_co_connect(MigrationConnector *c, GError **errp)
{
    ConnectAttempt attempt = {0};
    g_autoptr(GError) err = NULL;
    QIOChannel *ioc;

    if (connector_cancelled(c, errp)) {
        return NULL;
    }
    TAILQ_INSERT_TAIL(&c->attempts, &attempt, next);
    ioc = connector_co_open(c, &attempt, &err);
    if (ioc && c->creds && !connector_cancelled(c, NULL)) {
        attempt.ioc = ioc;
        ioc = connector_co_start_tls(c, ioc, &err);
        attempt.ioc = NULL;
    }
    TAILQ_REMOVE(&c->attempts, &attempt, next);
    if (connector_cancelled(c, errp)) {
        qio_channel_unref(ioc);
        return NULL;
    }
    if (!ioc) {
        g_propagate_error(errp, g_steal_pointer(&err));
        return NULL;
    }
    qio_channel_detach_aio_context(ioc);
    return ioc;
}

typedef struct BlockingConnect {
    MigrationConnector *c;
    QIOChannel *ioc;
    GError **errp;
} BlockingConnect;

static void coroutine_fn blocking_connect_co_entry(void *opaque)
{
    BlockingConnect *call = opaque;

    call->ioc = migration_connector_co_connect(call->c, call->errp);
}

QIOChannel *migration_connector_connect_blocking(MigrationConnector *c, GError **errp)
{
    BlockingConnect call = {.c = c, .errp = errp};

    main_loop_run_co(blocking_connect_co_entry, &call);
    return call.ioc;
}

static void connector_cancel_bh(void *opaque)
{
    MigrationConnector *c = opaque;
    ConnectAttempt *attempt;

    TAILQ_FOREACH(attempt, &c->attempts, next) {
        if (attempt->socket) {
            qio_channel_socket_cancel_connect(attempt->socket);
        } else if (attempt->ioc) {
            qio_channel_shutdown(attempt->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
        }
    }
    migration_connector_unref(c);
}

void migration_connector_cancel(MigrationConnector *c)
{
    if (!__atomic_exchange_n(&c->cancelled, true, __ATOMIC_ACQ_REL)) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), connector_cancel_bh,
                                migration_connector_ref(c));
    }
}

int migration_connector_open_extra(MigrationConnector *c, bool direct, GError **errp)
{
    if (c->mapped_fd >= 0) {
        return migration_open_fd_extra(c->mapped_fd, c->addr->u.socket.u.fd.str, true, direct,
                                       errp);
    }
    g_assert(c->addr->transport == MIGRATION_ADDRESS_TYPE_FILE);
    return migration_open_file_extra(&c->addr->u.file, true, direct, errp);
}

bool migration_connector_file_remains(const MigrationConnector *c, QIOChannel *ioc, GError **errp)
{
    const char *path = c->addr->u.file.filename;
    struct stat st;
    int64_t fdset_id;

    if (c->addr->transport != MIGRATION_ADDRESS_TYPE_FILE || qemu_is_fdset_path(path, &fdset_id)) {
        return true; /* one that was passed may never have had a name */
    }
    if (fstat(qio_channel_file_get_fd((QIOChannelFile *)ioc), &st) == 0 && st.st_nlink == 0) {
        error_setg(errp, "'%s' was removed while the guest was being saved to it", path);
        return false;
    }
    return true;
}
