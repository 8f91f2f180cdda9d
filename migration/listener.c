/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections of a destination: what it listens at, or the only channel that it is given. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/channel-file.h"
#include "io/net-listener.h"
#include "migration/channel.h"
#include "migration/newcomers.h"
#include "migration/transport.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/sockets.h"

/* Connections that the kernel holds for us. */
#define LISTEN_BACKLOG 256

struct MigrationListener {
    MigrationAddress *addr;
    int mapped_fd;                 /* of an fd: address with mapped-ram: a duplicate; -1: none */
    QIONetListener *net;           /* NULL: no sockets */
    QEMUBH *deliver_bh;            /* hands over `ready`; NULL: not needed any more */
    QIOChannel *ready;             /* the only channel of a file, a program or a descriptor */
    MigrationNewcomers *newcomers; /* NULL: stopped */
};

static void listener_client(QIONetListener *net, QIOChannelSocket *sioc, void *opaque)
{
    MigrationListener *listener = opaque;

    qio_channel_set_delay(QIO_CHANNEL(sioc), false);
    migration_newcomers_add(listener->newcomers, QIO_CHANNEL(sioc), false);
}

static void deliver_ready_bh(void *opaque)
{
    MigrationListener *listener = opaque;

    qemu_bh_delete(g_steal_pointer(&listener->deliver_bh));
    migration_newcomers_add(listener->newcomers, g_steal_pointer(&listener->ready), true);
}

static void watch_ready(MigrationListener *listener, IOHandler *readable)
{
    qio_channel_set_watch(listener->ready, qemu_get_aio_context(), QIO_CHANNEL_READ, readable,
                          listener);
}

static void ready_readable(void *opaque)
{
    watch_ready(opaque, NULL);
    deliver_ready_bh(opaque);
}

/* Before the source has opened a FIFO its stream would seem to be at its end. */
static bool is_fifo(const MigrationListener *listener)
{
    struct stat st;

    return listener->addr->transport == MIGRATION_ADDRESS_TYPE_FILE &&
           fstat(qio_channel_file_get_fd((QIOChannelFile *)listener->ready), &st) == 0 &&
           S_ISFIFO(st.st_mode);
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
    if (is_fifo(listener)) {
        watch_ready(listener, ready_readable);
    } else {
        qemu_bh_schedule(listener->deliver_bh);
    }
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
    listener->newcomers = migration_newcomers_new(func, opaque);
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
    migration_newcomers_set_lenient(listener->newcomers);
}

void migration_listener_stop(MigrationListener *listener)
{
    if (!listener || !listener->newcomers) {
        return;
    }
    if (listener->net) {
        /* Its callback may be the caller. The path is free at once: another may be bound to it. */
        qio_net_listener_close(listener->net);
        aio_bh_schedule_oneshot(qemu_get_aio_context(), free_net_bh,
                                g_steal_pointer(&listener->net));
    }
    migration_newcomers_free(g_steal_pointer(&listener->newcomers));
    if (listener->ready && is_fifo(listener)) {
        watch_ready(listener, NULL);
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

bool migration_listener_hears(const MigrationListener *listener)
{
    return (listener->net && qio_net_listener_pending(listener->net)) ||
           (listener->newcomers && migration_newcomers_speak(listener->newcomers));
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
