/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections of a destination: listening, TLS, and peers that never finish. */
#include <fcntl.h>
#include <unistd.h>
#include "crypto/tlscreds.h"
#include "io/channel-tls.h"
#include "io/net-listener.h"
#include "migration/channel.h"
#include "migration/transport.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/queue.h"
#include "util/sockets.h"
#include "util/timer.h"

/* A peer that does not finish the TLS handshake by then is forgotten. */
#define TLS_HANDSHAKE_NS (10 * NANOSECONDS_PER_SECOND)
/* Connections that the kernel holds for us. */
#define LISTEN_BACKLOG 256
/*
 * Handshakes at a time, besides one for each channel that the settings have: who opens connections and
 * says nothing cannot take more of the process. Others wait in the kernel.
 */
#define SPARE_HANDSHAKES 16

/* A channel whose TLS handshake is under way. */
typedef struct PendingChannel {
    MigrationListener *listener; /* NULL: it was stopped meanwhile */
    QIOChannel *ioc;             /* referenced: what to shut down */
    QIOChannelTLS *tls;          /* owned */
    bool only;                   /* there will be no other channel */
    LIST_ENTRY(PendingChannel) next;
} PendingChannel;

struct MigrationListener {
    MigrationAddress *addr;
    int mapped_fd; /* of an fd: address with mapped-ram: a duplicate; -1: none */
    MigrationChannelFunc *func;
    void *opaque;
    bool stopped;
    QIONetListener *net; /* NULL: no sockets */
    QEMUBH *deliver_bh;  /* hands over `ready`; NULL: not needed any more */
    QIOChannel *ready;   /* the only channel of a file, a program or a descriptor */
    LIST_HEAD(, PendingChannel) pending;
    unsigned n_pending;
    bool paused;            /* as many handshakes as there may be */
    int64_t next_report_ns; /* QEMU_CLOCK_REALTIME: errors of peers before that are only counted */
    unsigned unreported;
    bool lenient; /* a peer that fails is worth a warning */
};

static void listener_client(QIONetListener *net, QIOChannelSocket *sioc, void *opaque);

/* --- handshakes --- */

static unsigned handshakes_max(void)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    return SPARE_HANDSHAKES + 1 +
           (migrate_multifd(settings) ? migrate_multifd_channels(settings) : 0);
}

static void pending_unlink(PendingChannel *pending)
{
    MigrationListener *listener = pending->listener;

    LIST_REMOVE(pending, next);
    pending->listener = NULL;
    listener->n_pending--;
    if (listener->paused && listener->net) {
        listener->paused = false;
        qio_net_listener_set_client_func(listener->net, listener_client, listener);
    }
}

/* A peer that failed; many of them are one line a second. */
static void listener_report(MigrationListener *listener, GError *err)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    if (now < listener->next_report_ns) {
        listener->unreported++;
        g_error_free(err);
        return;
    }
    if (listener->unreported) {
        g_prefix_error(&err, "%u more peers failed, and: ", listener->unreported);
        listener->unreported = 0;
    }
    listener->next_report_ns = now + NANOSECONDS_PER_SECOND;
    g_assert(err);
    if (listener->lenient) {
        warn_report("%s", err->message);
        g_error_free(err);
    } else {
        error_report_err(err);
    }
}

/* The channel is there; or, where no other can come, it is not and err says why. */
static void listener_deliver(MigrationListener *listener, QIOChannel *ioc, bool only, GError *err)
{
    if (ioc || only) {
        listener->func(ioc, err, listener->opaque);
    } else {
        listener_report(listener, err);
    }
}

typedef struct Delivery {
    PendingChannel *pending;
    GError *err;
} Delivery;

static void handshake_done_bh(void *opaque)
{
    Delivery *delivery = opaque;
    PendingChannel *pending = delivery->pending;
    MigrationListener *listener = pending->listener;
    QIOChannel *ioc = QIO_CHANNEL(pending->tls);

    if (!listener) {
        g_clear_error(&delivery->err);
        qio_channel_unref(ioc);
    } else {
        pending_unlink(pending);
        if (delivery->err) {
            qio_channel_unref(ioc);
            ioc = NULL;
        } else {
            qio_channel_detach_aio_context(ioc);
        }
        listener_deliver(listener, ioc, pending->only, delivery->err);
    }
    qio_channel_unref(pending->ioc);
    g_free(pending);
    g_free(delivery);
}

static void coroutine_fn handshake_co_entry(void *opaque)
{
    PendingChannel *pending = opaque;
    Delivery *delivery = g_new0(Delivery, 1);

    delivery->pending = pending;
    if (qio_channel_tls_co_handshake(pending->tls, TLS_HANDSHAKE_NS, &delivery->err) < 0) {
        g_prefix_error(&delivery->err, "incoming migration: ");
    }
    /* Users may end the listener, and more, in its callback: not on this stack. */
    aio_bh_schedule_oneshot(qemu_get_aio_context(), handshake_done_bh, delivery);
}

/* The server's end over ioc; NULL with an error. */
static QIOChannelTLS *new_tls_server(QIOChannel *ioc, const MigrationSettings *settings,
                                     GError **errp)
{
    const char *authz = settings->params.tls_authz;
    QCryptoTLSCreds *creds = qcrypto_tls_creds_acquire(settings->params.tls_creds,
                                                       QCRYPTO_TLS_CREDS_ENDPOINT_SERVER, errp);
    QIOChannelTLS *tls =
        creds ? qio_channel_tls_new_server(ioc, creds, *authz ? authz : NULL, errp) : NULL;

    qcrypto_tls_creds_release(creds);
    return tls;
}

/* Takes over ioc, which is there but has not said anything. */
static void listener_add_channel(MigrationListener *listener, QIOChannel *ioc, bool only)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();
    PendingChannel *pending;
    QIOChannelTLS *tls;
    GError *err = NULL;

    if (!migrate_tls(settings)) {
        listener_deliver(listener, ioc, only, NULL);
        return;
    }
    tls = new_tls_server(ioc, settings, &err);
    if (!tls) {
        qio_channel_unref(ioc);
        listener_deliver(listener, NULL, only, err);
        return;
    }
    pending = g_new0(PendingChannel, 1);
    pending->listener = listener;
    pending->ioc = ioc;
    pending->tls = tls;
    pending->only = only;
    LIST_INSERT_HEAD(&listener->pending, pending, next);
    if (++listener->n_pending >= handshakes_max() && listener->net) {
        listener->paused = true;
        qio_net_listener_set_client_func(listener->net, NULL, NULL);
    }
    qemu_coroutine_enter(qemu_coroutine_create(handshake_co_entry, pending));
}

static void listener_client(QIONetListener *net, QIOChannelSocket *sioc, void *opaque)
{
    qio_channel_set_delay(QIO_CHANNEL(sioc), false);
    listener_add_channel(opaque, QIO_CHANNEL(sioc), false);
}

static void deliver_ready_bh(void *opaque)
{
    MigrationListener *listener = opaque;

    qemu_bh_delete(g_steal_pointer(&listener->deliver_bh));
    listener_add_channel(listener, g_steal_pointer(&listener->ready), true);
}

/* --- life --- */

static bool coroutine_fn listener_co_open_net(MigrationListener *listener, GError **errp)
{
    g_autoptr(QIONetListener) net = qio_net_listener_new();

    if (!qio_net_listener_co_open(net, &listener->addr->u.socket, LISTEN_BACKLOG, errp)) {
        return false;
    }
    listener->net = g_steal_pointer(&net);
    qio_net_listener_set_client_func(listener->net, listener_client, listener);
    return true;
}

static QIOChannel *listener_open_fd(MigrationListener *listener, bool mapped, GError **errp)
{
    const char *name = listener->addr->u.socket.u.fd.str;
    int fd = named_fd_take(name, errp);

    if (fd >= 0 && mapped) {
        listener->mapped_fd = migration_keep_mapped_fd(fd, name, errp);
        if (listener->mapped_fd < 0) {
            close(fd);
            return NULL;
        }
    }
    return fd < 0 ? NULL : migration_open_fd(fd, errp);
}

static bool listener_open_ready(MigrationListener *listener, GError **errp)
{
    const MigrationAddress *addr = listener->addr;
    g_autoptr(MigrationSettings) settings = migration_settings_get();
    bool mapped = migrate_mapped_ram(settings);

    if (addr->transport == MIGRATION_ADDRESS_TYPE_EXEC) {
        listener->ready = migration_open_exec(
            &addr->u.exec, migration_needs_both_ways(settings) ? O_RDWR : O_RDONLY, errp);
    } else if (addr->transport == MIGRATION_ADDRESS_TYPE_FILE) {
        listener->ready = migration_open_file(&addr->u.file, false, mapped, errp);
    } else {
        listener->ready = listener_open_fd(listener, mapped, errp);
    }
    if (!listener->ready) {
        return false;
    }
    listener->deliver_bh = aio_bh_new(qemu_get_aio_context(), deliver_ready_bh, listener);
    qemu_bh_schedule(listener->deliver_bh);
    return true;
}

MigrationListener *coroutine_fn migration_listener_co_new(const MigrationAddress *addr,
                                                          MigrationChannelFunc *func, void *opaque,
                                                          GError **errp)
{
    g_autoptr(MigrationSettings) settings = migration_settings_get();
    MigrationListener *listener;
    bool ok;

    if (!migration_transport_check(addr, settings, errp)) {
        return NULL;
    }
    listener = g_new0(MigrationListener, 1);
    listener->addr = migration_address_copy(addr);
    listener->mapped_fd = -1;
    listener->func = func;
    listener->opaque = opaque;
    LIST_INIT(&listener->pending);
    ok = migration_address_is_multi_channel(addr) ? listener_co_open_net(listener, errp)
                                                  : listener_open_ready(listener, errp);
    if (!ok) {
        migration_listener_free(listener);
        return NULL;
    }
    return listener;
}

static void free_net_bh(void *opaque)
{
    qio_net_listener_free(opaque);
}

void migration_listener_set_lenient(MigrationListener *listener)
{
    listener->lenient = true;
}

void migration_listener_stop(MigrationListener *listener)
{
    PendingChannel *pending, *next;

    if (listener->stopped) {
        return;
    }
    listener->stopped = true;
    if (listener->net) {
        /* It may be its callback that we are called from. */
        qio_net_listener_set_client_func(listener->net, NULL, NULL);
        aio_bh_schedule_oneshot(qemu_get_aio_context(), free_net_bh,
                                g_steal_pointer(&listener->net));
    }
    LIST_FOREACH_SAFE(pending, &listener->pending, next, next) {
        qio_channel_shutdown(pending->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
        pending_unlink(pending);
    }
    if (listener->deliver_bh) {
        qemu_bh_delete(g_steal_pointer(&listener->deliver_bh));
    }
    qio_channel_unref(g_steal_pointer(&listener->ready));
}

void migration_listener_free(MigrationListener *listener)
{
    if (!listener) {
        return;
    }
    migration_listener_stop(listener);
    if (listener->mapped_fd >= 0) {
        close(listener->mapped_fd);
    }
    qapi_free_MigrationAddress(listener->addr);
    g_free(listener);
}

SocketAddressList *migration_listener_addresses(const MigrationListener *listener)
{
    return listener->net ? qio_net_listener_addresses(listener->net) : NULL;
}

int migration_listener_open_extra(MigrationListener *listener, bool direct, GError **errp)
{
    if (listener->mapped_fd >= 0) {
        return migration_open_fd_extra(listener->mapped_fd, listener->addr->u.socket.u.fd.str,
                                       false, direct, errp);
    }
    if (listener->addr->transport != MIGRATION_ADDRESS_TYPE_FILE) {
        error_setg(errp, "Migration requires seekable transport (e.g. file)");
        return -1;
    }
    return migration_open_file_extra(&listener->addr->u.file, false, direct, errp);
}

const MigrationAddress *migration_listener_address(const MigrationListener *listener)
{
    return listener->addr;
}
